"""ONNX graphs: equal to the last bit where sums are exact, at any size, in both runtimes."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from exported import SIZES, build_exact_form, draw_images, run_form

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.export.integer_weights import quantize_weights
from spikeseg.platform.export.onnx_graph import build_onnx, find_neurons
from spikeseg.platform.export.open_exported import start_runtime
from spikeseg.platform.export.traced_program import ExportedForm, trace

# Tracing and translating takes ten seconds; a graph by hand is in test_integer_weights.py.
pytestmark = pytest.mark.slow
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def form() -> ExportedForm:
    return build_exact_form()


@pytest.fixture(scope="module")
def graph(form: ExportedForm) -> Any:
    """The form's graph; tests change copies."""
    return build_onnx(trace(form, (32, 32), free_size=True), form)


def copy_of(model: Any) -> Any:
    return type(model).FromString(model.SerializeToString())


def assert_equal_at_all_sizes(form: ExportedForm, content: bytes, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    run, _ = start_runtime(content, runtime, threads=1)
    seen = set()
    for batch, size in enumerate(SIZES, start=1):
        images = draw_images(batch, size)
        expected, found = run_form(form, images), run(images.numpy())["scores"]
        assert found.shape == (batch, 3, *size)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        seen |= set(np.unique(expected.argmax(1)))
    assert len(seen) > 1


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_graph_gives_the_forms_scores_at_any_size_and_batch(
    form: ExportedForm, graph: Any, runtime: str
) -> None:
    assert_equal_at_all_sizes(form, graph.SerializeToString(), runtime)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("made_for", ["onnx", "openvino"])
def test_weights_that_int8_holds_give_the_same_scores(
    form: ExportedForm, graph: Any, runtime: str, made_for: Any
) -> None:
    if (made_for, runtime) == ("onnx", "openvino"):
        pytest.skip("OpenVINO does not read QLinearConv with a scale a channel")
    model = copy_of(graph)
    assert quantize_weights(model, made_for) > 5
    assert_equal_at_all_sizes(form, model.SerializeToString(), runtime)


def test_a_rounded_weight_changes_scores(form: ExportedForm, graph: Any) -> None:
    """That the check above can fail: a count's convolution with another unit."""
    from onnx import numpy_helper

    model = copy_of(graph)
    quantize_weights(model, "openvino")
    (scale,) = [t for t in model.graph.initializer if t.name.endswith("_scale") and t.dims][:1]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 2, scale.name))
    run, _ = start_runtime(model.SerializeToString(), "onnx", threads=1)
    images = draw_images(1, SIZES[0])
    assert not np.allclose(run(images.numpy())["scores"], run_form(form, images))


def test_every_neuron_is_one_clip_and_one_round_named_as_in_the_network(
    form: ExportedForm, graph: Any
) -> None:
    names = {n for n, part in form.segmentor.named_modules() if getattr(part, "rule", None)}
    assert set(find_neurons(graph.graph)) == names
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert kinds["Clip"] == kinds["Round"] == len(names)
    assert not kinds["Max"] and not kinds["Min"] and not kinds["CastLike"]


def test_no_reshape_stands_between_a_convolution_and_its_neuron(graph: Any) -> None:
    producers = {name: node for node in graph.graph.node for name in node.output}
    before = Counter(
        producers[node.input[0]].op_type for node in graph.graph.node if node.op_type == "Clip"
    )
    # One reshape: attention's product becomes a map again.
    assert before["Reshape"] <= 1 and before["Conv"] > 5


def test_integer_convolutions_are_those_that_neurons_alone_read(graph: Any) -> None:
    model = copy_of(graph)
    count = quantize_weights(model, "onnx")
    whole = [node for node in model.graph.node if node.op_type == "QLinearConv"]
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(whole) > 5 and len(products) > 3 and len(whole) + len(products) == count
    readers = Counter(
        node.op_type for node in model.graph.node for item in whole if item.output[0] in node.input
    )
    assert set(readers) == {"Clip"}


def test_too_many_levels_are_refused_for_int8(graph: Any) -> None:
    model = copy_of(graph)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_most"):
            tensor.float_data[0] = 129
    with pytest.raises(ConfigError, match="at most 128 levels, this model has 129"):
        quantize_weights(model, "onnx")
