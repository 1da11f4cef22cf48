"""An independent count of a network's products: every aten operation of one pass, by its shapes."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikeseg.model.neuron.kinds import find_neurons


class TracedProducts(TorchDispatchMode):
    """Counts products below torch's Python interface, without knowing modules or spikes.

    Elementwise products count where one factor depends on the image; convolutions and products of
    matrices always do.

    Args:
        image: What the network is run on.

    Attributes:
        counts: Products by what they are.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        # Tensors are kept: a number of memory must not be used twice.
        self._kept: list[Tensor] = [image]
        self._live = {image.untyped_storage()._cdata}
        self.counts: Counter[str] = Counter()
        self.paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        live = [x for x in inputs if x.untyped_storage()._cdata in self._live]
        packet, namespace = func._schema.name.split("::")[1], func.namespace
        if namespace == "aten" and not self.paused:
            self._count(packet, args, inputs, live, result)
        if live:
            for output in tree_leaves(result):
                if isinstance(output, Tensor):
                    self._kept.append(output)
                    self._live.add(output.untyped_storage()._cdata)
            if packet.endswith("_") and isinstance(args[0], Tensor):
                self._kept.append(args[0])
                self._live.add(args[0].untyped_storage()._cdata)
        return result

    def _count(
        self, packet: str, args: Any, inputs: list[Tensor], live: list[Tensor], result: Any
    ) -> None:
        if packet == "convolution":
            self.counts["convolution"] += result.numel() * args[1][0].numel()
        elif packet in ("mm", "bmm"):
            self.counts["matrix"] += result.numel() * args[0].shape[-1]
        elif packet in ("addmm", "baddbmm"):
            self.counts["matrix"] += result.numel() * args[1].shape[-1]
        elif packet in ("mul", "mul_", "div", "div_") and live:
            others = [x for x in args[:2] if not any(x is y for y in live)]
            if others and _is_one(others[0]):
                return
            self.counts["elementwise"] += result.numel()
        elif packet == "mean" and live and args[0].numel() != result.numel():
            self.counts["elementwise"] += result.numel()
        elif "batch_norm" in packet:
            self.counts["normalization"] += result[0].numel()
        elif packet == "grid_sampler_2d":
            self.counts["sampling"] += 4 * result.numel()
        elif "bilinear" in packet:
            self.counts["interpolation"] += 4 * result.numel()
        elif live and packet in _UNKNOWN:
            raise AssertionError(f"{packet} is not counted")


_UNKNOWN = ("dot", "mv", "addmv", "addcmul", "addcdiv", "pow", "square", "einsum", "linalg_vecdot")


def _is_one(factor: Any) -> bool:
    if isinstance(factor, Tensor):
        return not factor.is_meta and factor.numel() <= 1 << 16 and bool((factor == 1).all())
    return factor == 1


# What the meter calls it -> what the trace does.
SAME = {
    "convolution": "convolution",
    "linear": "matrix",
    "attention": "matrix",
    "mask_product": "matrix",
    "product": "matrix",
    "scaling": "elementwise",
    "elementwise": "elementwise",
    "modulation": "elementwise",
    "normalization": "normalization",
    "sampling": "sampling",
    "interpolation": "interpolation",
}


def trace_products(model: torch.nn.Module, image: Tensor) -> Counter[str]:
    """Products of one pass over images, by what they are; a neuron's own arithmetic is none."""
    traced = TracedProducts(image)

    def pause(*_: Any) -> None:
        traced.paused = not traced.paused

    handles = [
        handle
        for _, neuron in find_neurons(model)
        for handle in (neuron.register_forward_pre_hook(pause), neuron.register_forward_hook(pause))
    ]
    with torch.no_grad(), traced:
        model(image)
    for handle in handles:
        handle.remove()
    return traced.counts
