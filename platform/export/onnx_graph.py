"""A traced program as an ONNX graph: neurons as Clip and Round, no node without an effect."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from .packages import require_package
from .traced_program import ExportedForm

OPSET = 18


def build_onnx(program: torch.export.ExportedProgram, form: ExportedForm) -> Any:
    """Translate a traced program to ONNX.

    Args:
        program: As `trace` makes it.
        form: What it was traced of.

    Returns:
        An `onnx.ModelProto` with input `images` and the form's outputs.

    Raises:
        ConfigError: Where onnx or onnxscript are not installed.
    """
    onnx = require_package("onnx")
    require_package("onnxscript")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    # It warns of operators of a package that this one does without.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The optimizer's file was refused by ONNX Runtime 1.32 where sizes are free.
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                optimize=False,
                verbose=False,
                input_names=["images"],
                output_names=list(form.names),
            )
    finally:
        logger.setLevel(level)
    assert exported is not None
    model = exported.model_proto
    clean_graph(model.graph)
    onnx.checker.check_model(model)
    return model


def find_neurons(graph: Any) -> dict[str, str]:
    """Tensor of spike counts of each neuron: path of its module in the segmentor -> name.

    A neuron whose module runs several times is left out.
    """
    names: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type not in ("Round", "Floor"):
            continue
        scopes = [item.value for item in node.metadata_props if item.key.endswith("name_scopes")]
        if not scopes:
            continue
        path = scopes[0].strip("[]").split(", ")[-2].strip("'")
        # A neuron with a state stands in a module that parts its steps.
        path = path.removeprefix("segmentor.").removesuffix(".neuron")
        names.setdefault(path, []).append(node.output[0])
    return {path: tensors[0] for path, tensors in names.items() if len(tensors) == 1}


def clean_graph(graph: Any) -> None:
    """Make neurons of few nodes and take out nodes without an effect, in place.

    Clamps become one Clip; computed biases of zeros, products with one, and what nobody reads go.

    Args:
        graph: An `onnx.GraphProto`.
    """
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] not in constants:
            del node.input[2]
    _join_clamps(graph)
    _bypass_products_with_one(graph)
    drop_unread(graph)


def _join_clamps(graph: Any) -> None:
    """One Clip in the place of Max and Min with constants."""
    onnx = require_package("onnx")

    producers = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        bounds = _find_bounds(node, producers)
        if bounds is None:
            nodes.append(node)
            continue
        source, kind, limits = bounds
        names = []
        for side, value in zip(("least", "most"), limits, strict=True):
            names.append(f"{node.output[0]}_{side}")
            graph.initializer.append(onnx.helper.make_tensor(names[-1], kind, [], [value]))
        clip = onnx.helper.make_node("Clip", [source, *names], list(node.output), name=node.name)
        clip.metadata_props.extend(node.metadata_props)
        nodes.append(clip)
    del graph.node[:]
    graph.node.extend(nodes)


def _find_bounds(
    node: Any, producers: dict[str, Any]
) -> tuple[str, int, tuple[float, float]] | None:
    """Operand, type and bounds where a node is the end of a clamp; else None."""
    if node.op_type != "Min" or len(node.input) != 2:
        return None
    before = producers.get(node.input[0])
    if before is None or before.op_type != "Max" or len(before.input) != 2:
        return None
    most = _read_constant(node.input[1], producers)
    least = _read_constant(before.input[1], producers)
    if most is None or least is None:
        return None
    return before.input[0], most[0], (least[1], most[1])


def _read_constant(name: str, producers: dict[str, Any]) -> tuple[int, float] | None:
    """Type and value of a number that is computed of constants alone; else None."""
    onnx = require_package("onnx")

    node = producers.get(name)
    if node is None:
        return None
    if node.op_type == "Constant" and node.attribute[0].name == "value":
        values = onnx.numpy_helper.to_array(node.attribute[0].t)
        kind = node.attribute[0].t.data_type
        return (kind, float(values)) if values.ndim == 0 else None
    if node.op_type in ("Cast", "CastLike"):
        inner = _read_constant(node.input[0], producers)
        if inner is None or node.op_type == "CastLike":
            return inner
        return onnx.helper.get_attribute_value(node.attribute[0]), inner[1]
    return None


def _bypass_products_with_one(graph: Any) -> None:
    onnx = require_package("onnx")

    # A factor of several axes may also widen its operand: these do not.
    ones = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type in (1, 11)
        and len(tensor.dims) <= 1
        and (onnx.numpy_helper.to_array(tensor) == 1).all()
    }
    kept = {output.name for output in graph.output}
    renamed: dict[str, str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type != "Mul" or node.output[0] in kept:
            continue
        others = [name for name in node.input if name not in ones]
        if len(others) == 1:
            renamed[node.output[0]] = others[0]


def drop_unread(graph: Any) -> None:
    """Take out nodes and constants that no output is computed from, in place."""
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in read for name in node.output):
            kept.append(node)
            read.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def iterate_readers(graph: Any) -> Iterator[tuple[str, Any]]:
    """Every (tensor, node that reads it) of a graph."""
    for node in graph.node:
        for name in node.input:
            yield name, node
