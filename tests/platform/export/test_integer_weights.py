"""Int8 weights in a graph by hand: neuron, 3x3 to a neuron, 1x1 to a float result."""

from typing import Any

import numpy as np
import pytest

from spikeseg.platform.export.integer_weights import quantize_weights
from spikeseg.platform.export.onnx_graph import clean_graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def neuron(source: str, output: str) -> list[Any]:
    clip = onnx.helper.make_node("Clip", [source, "zero", "most"], [f"{output}_clip"])
    return [clip, onnx.helper.make_node("Round", [f"{output}_clip"], [output])]


def build(first: np.ndarray, second: np.ndarray, bias: np.ndarray) -> Any:
    """Images -> neuron -> 3x3 -> neuron -> 1x1 -> scores, D = 4."""
    node = onnx.helper.make_node
    nodes = [
        *neuron("images", "in"),
        node("Conv", ["in", "first", "bias"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        *neuron("h", "out"),
        node("Conv", ["out", "second", "bias"], ["product"], kernel_shape=[1, 1]),
        node("Mul", ["product", "one"], ["doubled"]),
        node("Add", ["doubled", "out"], ["scores"]),
    ]
    arrays = {
        "first": first,
        "second": second,
        "bias": bias,
        "zero": np.array(0, np.float32),
        "most": np.array(4, np.float32),
        "one": np.ones(1, np.float32),
    }
    tensors = [
        onnx.helper.make_tensor(name, 1, value.shape, value.ravel().tolist())
        for name, value in arrays.items()
    ]
    shape = ["b", 2, "h", "w"]
    graph = onnx.helper.make_graph(
        nodes,
        "by_hand",
        [onnx.helper.make_tensor_value_info("images", 1, shape)],
        [onnx.helper.make_tensor_value_info("scores", 1, shape)],
        tensors,
    )
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)


def weights(unit: float, *shape: int) -> np.ndarray:
    whole = np.random.default_rng(len(shape)).integers(-127, 128, (2, 2, *shape))
    whole[:, 0, 0, 0] = 127
    return (whole * unit).astype(np.float32)


def run(model: Any, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["scores"], {"images": images})[0]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(-4, 12, (2, 2, 6, 5)).astype(np.float32) / 2


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_weights_that_eight_bits_hold_change_nothing(runtime: Any, images: np.ndarray) -> None:
    model = build(weights(2.0**-8, 3, 3), weights(2.0**-6, 1, 1), np.array([0.25, 1.5], np.float32))
    expected = run(model, images)
    clean_graph(model.graph)
    assert not any(node.op_type == "Mul" for node in model.graph.node)
    assert quantize_weights(model, runtime) == 2
    kinds = [node.op_type for node in model.graph.node]
    integer = {"QLinearConv", "MatMulIntegerToFloat"}
    assert integer <= set(kinds) if runtime == "onnx" else kinds.count("Conv") == 2
    np.testing.assert_array_equal(run(model, images), expected)
    assert len(np.unique(expected)) > 20


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_other_weights_are_rounded_to_the_nearest_step_of_their_channel(
    runtime: Any, images: np.ndarray
) -> None:
    second = weights(2.0**-6, 1, 1) * np.array([[[[1.0]]], [[[1 / 3]]]], np.float32)
    second[:, 1] += 0.3 * np.abs(second).max((1, 2, 3))[:, None, None] / 127
    model = build(weights(2.0**-8, 3, 3), second, np.array([0.25, 1.5], np.float32))
    step = np.abs(second).max((1, 2, 3), keepdims=True) / 127
    rounded = build(
        weights(2.0**-8, 3, 3), np.rint(second / step) * step, np.array([0.25, 1.5], np.float32)
    )
    exact, expected = run(model, images), run(rounded, images)
    quantize_weights(model, runtime)
    found = run(model, images)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(found - exact).max() > 1e-3


def test_a_convolution_of_an_image_stays_as_it_is(images: np.ndarray) -> None:
    model = build(weights(2.0**-8, 3, 3), weights(2.0**-6, 1, 1), np.array([0, 0], np.float32))
    # Without the first neuron its convolution reads the image.
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] == "in":
            node.input[0] = "images"
    expected = run(model, images)
    assert quantize_weights(model, "openvino") == 1
    np.testing.assert_array_equal(run(model, images), expected)
