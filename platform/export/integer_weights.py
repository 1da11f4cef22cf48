"""Int8 weights where a convolution reads spike counts, which 8 bits hold exactly.

A count is a whole number in 0..D: as uint8 with scale 1 and zero point 0 it is itself, so that
nothing is calibrated and weights alone are rounded, to int8 with one scale an output channel.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ..config.errors import ConfigError
from .onnx_graph import drop_unread, iterate_readers
from .packages import require_package

Runtime = Literal["onnx", "openvino"]
# Processors without VNNI add two products in 16 bits: 2 * 127 * D has to fit.
MOST_LEVELS = 128
# Operations that move counts and change none.
_MICROSOFT = "com.microsoft"
_MOVES = ("Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Slice", "Flatten", "Concat")


class _Neuron(NamedTuple):
    """A neuron in the graph: its input, its Clip and Round, its largest count."""

    source: str
    clip: Any
    round: Any
    levels: int


def quantize_weights(model: Any, runtime: Runtime) -> int:
    """Round the weights of all convolutions that read spike counts to int8, in place.

    Args:
        model: An `onnx.ModelProto` of `build_onnx`, float32.
        runtime: Who is to be fast with it. `openvino`: each such convolution stands between
            DequantizeLinear and QuantizeLinear, its output and bias are float; every runtime reads
            it. `onnx`: where neurons alone read a convolution it is QLinearConv with output scale
            1, which is the neuron itself up to its Clip (the bias is rounded to int32, in units of
            the weight's scale); other 1x1 convolutions are MatMulIntegerToFloat, an operation of
            ONNX Runtime; the rest keep float32, for which it has no fast integer form.

    Returns:
        Number of convolutions with int8 weights.

    Raises:
        ConfigError: Where neurons emit more than `MOST_LEVELS`.
    """
    graph = model.graph
    neurons = _find_neurons(graph)
    high = max((neuron.levels for neuron in neurons.values()), default=0)
    if high > MOST_LEVELS:
        raise ConfigError(
            f"weights: int8 takes neurons of at most {MOST_LEVELS} levels, this model has {high}"
        )
    rounding = _Quantization(graph, neurons)
    for node in list(graph.node):
        if node.op_type == "Conv" and rounding.reads_counts(node):
            rounding.quantize(node, integer_output=runtime == "onnx")
    rounding.write()
    if runtime == "onnx":
        model.opset_import.add(domain=_MICROSOFT, version=1)
    return rounding.count


def _find_neurons(graph: Any) -> dict[str, _Neuron]:
    """Output of each neuron that rounds halves to even -> the neuron."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    neurons = {}
    for node in graph.node:
        clip = producers.get(node.input[0]) if node.op_type == "Round" else None
        if clip is None or clip.op_type != "Clip":
            continue
        most = constants[clip.input[2]].float_data[0]
        neurons[node.output[0]] = _Neuron(clip.input[0], clip, node, int(most))
    return neurons


def _is_pointwise(conv: Any) -> bool:
    """Whether a convolution is a product over channels at every pixel."""
    onnx = require_package("onnx")
    values = {item.name: onnx.helper.get_attribute_value(item) for item in conv.attribute}
    ones = [*values.get("kernel_shape", [0]), *values.get("strides", [1])]
    return set(ones) == {1} and values.get("group", 1) == 1 and not any(values.get("pads", []))


class _Quantization:
    """New nodes and constants of a graph, and what stands for its tensors in 8 bits.

    Args:
        graph: The graph.
        neurons: Its neurons by output.
    """

    def __init__(self, graph: Any, neurons: dict[str, _Neuron]) -> None:
        onnx = require_package("onnx")

        self.count = 0
        self._graph = graph
        self._neurons = neurons
        self._producers = {name: node for node in graph.node for name in node.output}
        self._arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        self._readers: dict[str, list[Any]] = {}
        for name, node in iterate_readers(graph):
            self._readers.setdefault(name, []).append(node)
        self._replaced: dict[int, list[Any]] = {}
        self._behind: dict[int, list[Any]] = {}
        self._eight_bits: dict[str, str] = {}
        self._add("count_scale", np.array(1, np.float32))
        self._add("count_zero", np.array(0, np.uint8))

    def reads_counts(self, conv: Any) -> bool:
        """Whether a convolution's input is spike counts and its weight a constant."""
        return conv.input[1] in self._arrays and self._holds_counts(conv.input[0])

    def _holds_counts(self, name: str) -> bool:
        if name in self._neurons:
            return True
        node = self._producers.get(name)
        if node is None or node.op_type not in _MOVES:
            return False
        # Steps of neurons with a state are put together.
        moved = node.input if node.op_type == "Concat" else node.input[:1]
        return all(self._holds_counts(item) for item in moved)

    def quantize(self, conv: Any, *, integer_output: bool) -> None:
        """Give a convolution int8 weights, and an integer output where neurons alone read it."""
        name = conv.output[0]
        readers = self._readers.get(name, [])
        fires = [n for n in self._neurons.values() if n.source == name]
        outputs = {output.name for output in self._graph.output}
        alone = len(fires) == len(readers) > 0 and name not in outputs
        if integer_output and not alone and not _is_pointwise(conv):
            return
        self.count += 1
        weight = self._arrays[conv.input[1]]
        scale = np.abs(weight.reshape(len(weight), -1)).max(1).astype(np.float64) / 127
        scale[scale == 0] = 1
        shape = (-1, *(1,) * (weight.ndim - 1))
        rounded = np.rint(weight / scale.reshape(shape)).astype(np.int8)
        self._add(f"{name}_weight", rounded)
        self._add(f"{name}_scale", scale.astype(np.float32))
        self._add(f"{name}_zero", np.zeros(len(weight), np.int8))
        if integer_output and alone:
            self._make_integer(conv, fires, scale)
        elif integer_output:
            self._make_product(conv)
        else:
            self._make_float(conv)

    def _make_float(self, conv: Any) -> None:
        counts = self._in_eight_bits(conv.input[0])
        name = conv.output[0]
        real = f"{conv.input[0]}_real"
        before = []
        if real not in self._arrays:
            self._arrays[real] = np.zeros(0)
            before.append(
                self._node("DequantizeLinear", [counts, "count_scale", "count_zero"], real)
            )
        weight = f"{name}_weight_real"
        parts = [f"{name}_weight", f"{name}_scale", f"{name}_zero"]
        before.append(self._node("DequantizeLinear", parts, weight, axis=0))
        conv.input[0], conv.input[1] = real, weight
        self._replaced[id(conv)] = [*before, conv]

    def _make_product(self, conv: Any) -> None:
        """A 1x1 convolution whose output stays float: a product over channels, which come last."""
        name = conv.output[0]
        last, result = f"{name}_channels_last", f"{name}_product"
        weight = self._arrays[f"{name}_weight"]
        self._add(f"{name}_matrix", np.ascontiguousarray(weight.reshape(len(weight), -1).T))
        inputs = [last, f"{name}_matrix", "count_scale", f"{name}_scale", "count_zero", ""]
        if len(conv.input) == 3:
            inputs.append(conv.input[2])
        counts = self._in_eight_bits(conv.input[0])
        self._replaced[id(conv)] = [
            self._node("Transpose", [counts], last, perm=[0, 2, 3, 1]),
            self._node("MatMulIntegerToFloat", inputs, result, domain=_MICROSOFT),
            self._node("Transpose", [result], name, perm=[0, 3, 1, 2]),
        ]

    def _make_integer(self, conv: Any, fires: Sequence[_Neuron], scale: np.ndarray) -> None:
        onnx = require_package("onnx")

        name = conv.output[0]
        inputs = [self._in_eight_bits(conv.input[0]), "count_scale", "count_zero"]
        inputs += [f"{name}_weight", f"{name}_scale", f"{name}_zero", "count_scale", "count_zero"]
        if len(conv.input) == 3:
            bias = self._arrays[conv.input[2]] / scale
            limits = np.iinfo(np.int32)
            self._add(
                f"{name}_bias", np.clip(np.rint(bias), limits.min, limits.max).astype(np.int32)
            )
            inputs.append(f"{name}_bias")
        whole = f"{name}_whole"
        product = self._node("QLinearConv", inputs, whole)
        product.attribute.extend(conv.attribute)
        nodes = [product]
        for neuron in fires:
            most = f"count_most_{neuron.levels}"
            if most not in self._arrays:
                self._add(most, np.array(neuron.levels, np.uint8))
            output = neuron.round.output[0]
            clip = self._node("Clip", [whole, "count_zero", most], f"{output}_counts")
            back = [f"{output}_counts", "count_scale", "count_zero"]
            nodes += [clip, onnx.helper.make_node("DequantizeLinear", back, [output])]
            self._eight_bits[output] = f"{output}_counts"
            self._replaced[id(neuron.clip)] = self._replaced[id(neuron.round)] = []
        self._replaced[id(conv)] = nodes

    def _in_eight_bits(self, name: str) -> str:
        """Name of a tensor of counts in 8 bits; made behind the tensor where it is not there."""
        if name not in self._eight_bits:
            counts = f"{name}_counts"
            node = self._node("QuantizeLinear", [name, "count_scale", "count_zero"], counts)
            self._behind.setdefault(id(self._producers[name]), []).append(node)
            self._eight_bits[name] = counts
        return self._eight_bits[name]

    def _add(self, name: str, array: np.ndarray) -> None:
        onnx = require_package("onnx")

        self._arrays[name] = array
        self._graph.initializer.append(onnx.numpy_helper.from_array(array, name))

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
        onnx = require_package("onnx")

        return onnx.helper.make_node(kind, list(inputs), [output], **attributes)

    def write(self) -> None:
        """Put the new nodes into the graph, and take out what nobody reads any more."""
        nodes = []
        for node in self._graph.node:
            nodes += self._replaced.get(id(node), [node])
            nodes += self._behind.get(id(node), [])
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        drop_unread(self._graph)
