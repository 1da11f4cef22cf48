"""Operations under the names and rules of NeuroBench and of SpikingJelly, for comparison."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...model.accounting.energy import MATRIX_PRODUCTS
from ...model.accounting.operations import LayerOperations
from ...model.neuron.kinds import find_neurons

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


class ConnectionMeter:
    """Effective and dense operations of convolutions and linear layers, NeuroBench's way.

    An operation is effective where neither input nor weight is 0; border zeros are none. A layer
    whose inputs are all -1, 0 or 1 accumulates, any other multiplies. Each call decides for itself.

    Args:
        model: The model, in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.images = 0
        self.effective_macs = self.effective_acs = self.dense = 0.0
        self.zeros = self.activations = 0
        self._handles = [
            module.register_forward_hook(self._count)
            for module in model.modules()
            if isinstance(module, _LAYERS)
        ]
        self._handles += [
            neuron.register_forward_hook(self._count_zeros) for _, neuron in find_neurons(model)
        ]

    def close(self) -> None:
        """Stop counting."""
        for handle in self._handles:
            handle.remove()

    def _count(self, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        x = args[0]
        weight = (layer.weight != 0).to(torch.float64)
        run = _bind(layer)
        effective = float(run((x != 0).to(torch.float64), weight).sum())
        self.dense += float(run(torch.ones_like(x, dtype=torch.float64), weight**0).sum())
        if bool(((x == 0) | (x == 1) | (x == -1)).all()):
            self.effective_acs += effective
        else:
            self.effective_macs += effective

    def _count_zeros(self, neuron: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.zeros += int((output == 0).sum())
        self.activations += output.numel()


def _bind(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    if isinstance(layer, nn.Linear):
        return nn.functional.linear
    function = nn.functional.conv1d if isinstance(layer, nn.Conv1d) else nn.functional.conv2d
    return lambda x, weight: function(
        x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )


def measure_neurobench(
    model: nn.Module, batches: list[Tensor], rows: list[LayerOperations]
) -> dict[str, Any]:
    """NeuroBench's figures of a network, under its names.

    Args:
        model: In eval mode.
        batches: Normalized images, (B, 3, H, W) each.
        rows: What an `OperationMeter` counted of the same images: the unrolled form's figures.

    Returns:
        `footprint` (bytes), `connection_sparsity`, `activation_sparsity`, `synaptic_operations` of
        one image for the graded form, `unrolled` the same for binary slots, and
        `membrane_updates` of one image.

    Source: NeuroBench (arXiv 2304.04640), metrics of version 1.
    """
    meter = ConnectionMeter(model)
    with torch.inference_mode():
        for images in batches:
            model(images)
    meter.close()
    number = sum(len(images) for images in batches)
    tensors = [*model.parameters(), *model.buffers()]
    weights = [module.weight for module in model.modules() if isinstance(module, _LAYERS)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    layers = [row for row in rows if row.kind in ("convolution", "linear")]
    return {
        "footprint": sum(x.numel() * x.element_size() for x in tensors),
        "connection_sparsity": zeros / sum(weight.numel() for weight in weights),
        "activation_sparsity": meter.zeros / max(1, meter.activations),
        "synaptic_operations": {
            "Effective_MACs": meter.effective_macs / number,
            "Effective_ACs": meter.effective_acs / number,
            "Dense": meter.dense / number,
        },
        "unrolled": {
            "Effective_MACs": sum(row.macs for row in layers if not row.operands),
            "Effective_ACs": sum(row.unary for row in layers if row.operands),
        },
        "membrane_updates": sum(row.macs for row in rows if row.kind == "neuron"),
    }


class BinaryProducts(TorchDispatchMode):
    """Counts products of matrices and convolutions by whether an operand is all 0 and 1.

    Attributes:
        synops: Accumulates that ones cause, with their fan-out, where an operand is binary.
        macs: Dense multiply-accumulates, border zeros included, where none is.
        norm_macs: One for each value that a BatchNorm scales.
    """

    def __init__(self) -> None:
        super().__init__()
        self.synops = self.macs = self.norm_macs = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation of torch and count its products."""
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in ("mm", "bmm"):
            self._count_matrices(args[0], args[1])
        elif name in ("addmm", "baddbmm"):
            self._count_matrices(args[1], args[2])
        elif name == "convolution":
            self._count_convolution(args, result)
        elif name == "native_batch_norm":
            self.norm_macs += args[0].numel()
        return result

    def _count_matrices(self, left: Tensor, right: Tensor) -> None:
        rows, columns = left.shape[-2], right.shape[-1]
        left_is, right_is = _is_binary(left), _is_binary(right)
        if left_is and right_is:
            pairs = left.double().sum(-2) * right.double().sum(-1)
            self.synops += float(pairs.sum())
        elif left_is:
            self.synops += float(left.count_nonzero()) * columns
        elif right_is:
            self.synops += float(right.count_nonzero()) * rows
        else:
            self.macs += left.numel() * columns

    def _count_convolution(self, args: tuple[Any, ...], result: Tensor) -> None:
        x, weight, _, stride, padding, dilation, transposed, extra, groups = args
        if _is_binary(x):
            ones = torch.ones_like(weight, dtype=torch.float64)
            run = torch.ops.aten.convolution.default
            reached = run(
                x.double(), ones, None, stride, padding, dilation, transposed, extra, groups
            )
            self.synops += float(reached.sum())
        elif _is_binary(weight):
            self.synops += float(weight.count_nonzero()) * result[:, 0].numel()
        else:
            self.macs += result.numel() * weight[0].numel()


def _is_binary(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def measure_spikingjelly(
    model: nn.Module, batches: list[Tensor], rows: list[LayerOperations]
) -> dict[str, Any]:
    """SpikingJelly's operation counters of one image, under its names.

    Args:
        model: In eval mode.
        batches: Normalized images, (B, 3, H, W) each.
        rows: What an `OperationMeter` counted of the same images: the unrolled form's figures.

    Returns:
        `SynOpCounter` and `MACCounter` of the network as it computes (a graded spike is a
        multiply), `unrolled` the same for binary slots.

    Source: spikingjelly.activation_based.op_counter of version 2.0.
    """
    # Not inference_mode: there, what a dispatch mode sees are undivided operations.
    with torch.no_grad(), BinaryProducts() as counted:
        for images in batches:
            model(images)
    number = sum(len(images) for images in batches)
    products = [row for row in rows if row.kind in MATRIX_PRODUCTS]
    norms = sum(row.macs for row in rows if row.kind == "normalization")
    return {
        "SynOpCounter": counted.synops / number,
        "MACCounter": (counted.macs + counted.norm_macs) / number,
        "unrolled": {
            "SynOpCounter": sum(row.unary for row in products if row.operands),
            "MACCounter": sum(row.macs for row in products if not row.operands) + norms,
        },
    }


STANDARDS = {"neurobench": measure_neurobench, "spikingjelly": measure_spikingjelly}
"""Name of a standard -> function of model, batches and rows."""
