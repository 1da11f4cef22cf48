"""Whole exports of a tiny network: what the file says, what it computes, what is refused."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import settle, tiny_fpn
from tiny import experiment, pack_shapes

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.model.segmentor import build_uncalibrated_segmentor
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.export.export_network import ExportRequest, check_request, export_network
from spikeseg.platform.export.metadata import ExportSource, decode_metadata
from spikeseg.platform.export.open_exported import open_exported
from spikeseg.platform.export.packages import require_package


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("data") / "shapes")


@pytest.fixture(scope="module")
def source(data: Path) -> ExportSource:
    config = experiment(data, decoder="fpn")
    torch.manual_seed(0)
    model = settle(build_uncalibrated_segmentor(config.model), torch.randn(4, 3, 32, 32))
    space = PackedDataset.open(data).label_space
    return ExportSource(model, config, space, "tiny/checkpoints/step-7")


def draw_source(dataset: PackedDataset, config: ExperimentConfig, **changes: Any) -> ExportSource:
    """A network of drawn weights, with fields of the model's configuration changed."""
    model_config = dataclasses.replace(config.model, **changes)
    torch.manual_seed(0)
    model = settle(build_uncalibrated_segmentor(model_config), torch.randn(4, 3, 32, 32))
    changed = config.model_copy(update={"model": model_config})
    return ExportSource(model, changed, dataset.label_space, "tiny")


@pytest.mark.slow
def test_a_program_file_says_what_it_is_and_computes_the_same(
    source: ExportSource, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt2"
    written = export_network(
        source, PackedDataset.open(data), ExportRequest(path, format="pt2", images=3)
    )
    opened = open_exported(path, "torch")
    assert opened.metadata == json.loads(json.dumps(written))
    assert opened.metadata["classes"] == list(source.space.classes)
    assert opened.metadata["preprocessing"]["mean"] == [123.675, 116.28, 103.53]
    assert opened.metadata["size"] is None and opened.metadata["least_side"] == 17
    parity = opened.metadata["parity"]
    assert parity["images"] == 3 and parity["images_from"] == "split val of shapes"
    # In float32 a changed spike may travel, so that only much is asked.
    assert parity["spikes_compared"] > 1000 and parity["labels_equal"] > 0.5
    assert parity["miou"].keys() == {"trained", "exported", "change"}
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 64), np.uint8)
    scores = opened.predict_logits(pictures)
    assert scores.shape == (2, 9, 40, 64)
    mean, std = (
        np.array(source.config.data.transform.mean),
        np.array(source.config.data.transform.std),
    )
    normalized = ((pictures - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
    np.testing.assert_allclose(opened.predict_logits(normalized), scores, rtol=1e-2, atol=1e-1)
    assert "float32" in opened.precision and "torch" in opened.precision
    for wrong, message in (
        (pictures[0], r"images must be \(B, 3, H, W\)"),
        (pictures.astype(np.float64), "float64"),
        (pictures[:, :, :16], "sides must be at least 17 pixels, got 16 x 64"),
    ):
        with pytest.raises(ValueError, match=message):
            opened.predict_logits(wrong)


@pytest.mark.slow
def test_in_float64_nothing_changes(data: Path, tmp_path: Path) -> None:
    from spikeseg.platform.export.traced_program import ExportedForm

    torch.manual_seed(0)
    for decoder in ("fpn", "query"):
        config = experiment(data, decoder=decoder)
        images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
        model = settle(build_uncalibrated_segmentor(config.model).double(), images)
        with torch.no_grad():
            from spikeseg.model.postprocess import semantic_logits

            expected = semantic_logits(model(images), (32, 32))
            found = ExportedForm(model)(images)[0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [("float32", "onnx"), ("int8", "onnx"), ("int8", "openvino")])
def test_an_onnx_file_runs_by_the_lines_of_the_documentation(
    source: ExportSource,
    data: Path,
    tmp_path: Path,
    repository: Path,
    kind: tuple[Any, Any],
) -> None:
    import subprocess

    from PIL import Image

    weights, runtime = kind
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    pytest.importorskip(runtime if runtime == "openvino" else "onnx")
    path = tmp_path / "net.onnx"
    dataset = PackedDataset.open(data)
    written = export_network(source, dataset, ExportRequest(path, "onnx", weights, runtime))
    assert written["parity"]["images"] == 5
    assert bool(written["integer_convolutions"]) == (weights == "int8")
    opened = open_exported(path, runtime, threads=1)
    assert weights in opened.precision and opened.metadata["parity"] == written["parity"]
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    text = (repository / "docs" / "export.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert "onnxruntime" in code and "spikeseg." not in code
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    labels = open_exported(path, "onnx").predict_logits(picture.transpose(2, 0, 1)[None]).argmax(1)
    palette = np.array(opened.metadata["palette"], np.uint8)
    shown = np.asarray(Image.open(tmp_path / "labels.png"))
    assert (shown == palette[labels[0]]).all(-1).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("compat", ["corrected", "published"])
def test_the_query_decoder_exports(data: Path, tmp_path: Path, compat: Any) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    dataset = PackedDataset.open(data)
    source = draw_source(dataset, experiment(data), compat=compat)
    path = tmp_path / "net.onnx"
    written = export_network(source, dataset, ExportRequest(path, images=2))
    assert written["size"] == (None if compat == "corrected" else [32, 32])
    assert written["parity"]["spikes_compared"] > 1000
    opened = open_exported(path, "onnx", threads=1)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    assert opened.predict_logits(pictures).shape == (3, 9, 32, 32)
    larger = pictures.repeat(2, 2)
    if compat == "corrected":
        assert opened.predict_logits(larger).shape == (3, 9, 64, 32)
    else:
        with pytest.raises(ValueError, match="it takes images of 32 x 32, got 64 x 32"):
            opened.predict_logits(larger)


@pytest.mark.slow
def test_spikes_of_neurons_that_openvino_joins_are_compared(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    config, dataset = experiment(data), PackedDataset.open(data)
    query = dataclasses.replace(config.model.query, pyramid="dense", num_encoder_layers=1)
    source = draw_source(dataset, config, query=query)
    request = ExportRequest(tmp_path / "net.onnx", "onnx", "int8", "openvino", images=1)
    assert export_network(source, dataset, request)["parity"]["spikes_compared"] > 1000


@pytest.mark.slow
@pytest.mark.parametrize("compat", ["corrected", "published"])
def test_neurons_with_a_state_run_on_every_runtime(data: Path, tmp_path: Path, compat: Any) -> None:
    pytest.importorskip("onnxscript")
    config, dataset = experiment(data), PackedDataset.open(data)
    neuron = dataclasses.replace(config.model.neuron, timesteps=2, dynamics="temporal")
    source = draw_source(dataset, config, compat=compat, neuron=neuron)
    path = tmp_path / "net.onnx"
    request = ExportRequest(path, "onnx", "int8", "openvino", images=2)
    written = export_network(source, dataset, request)
    assert written["computed_steps"] == 2 and written["integer_convolutions"] > 10
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    labels = [
        open_exported(path, runtime, threads=1).predict_logits(pictures).argmax(1)
        for runtime in ("onnx", "openvino")
        if pytest.importorskip("onnxruntime" if runtime == "onnx" else runtime)
    ]
    assert labels[0].shape == (3, 32, 32)
    # In float32 a changed spike may travel.
    assert (labels[0] == labels[1]).mean() > 0.5


def test_wrong_requests_are_refused_before_work_starts(tmp_path: Path) -> None:
    there = tmp_path / "there.pt2"
    there.touch()
    for request, message in (
        (ExportRequest(tmp_path / "a.onx"), r"a\.onx: a file of format onnx ends in \.onnx"),
        (ExportRequest(there, format="pt2"), "exists already"),
        (ExportRequest(tmp_path / "no" / "a.pt2", format="pt2"), "no such folder"),
        (ExportRequest(tmp_path / "a.pt2", "pt2", "int8"), "a pt2 has float32"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_request(request)
    assert list(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize(
    ("name", "extra"), [("onnx", "export"), ("onnxruntime", "export"), ("openvino", "openvino")]
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ConfigError, match=rf"{name} is not installed: pip install 'spikeseg\[{extra}\]'"
    ):
        require_package(name)


def test_files_that_are_none_of_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    with pytest.raises(ConfigError, match="no such file"):
        open_exported(path, "torch")
    path.write_bytes(b"no program")
    with pytest.raises(ConfigError, match=r"a\.pt2: torch cannot open it"):
        open_exported(path, "torch")
    with pytest.raises(ConfigError, match=r"runtime openvino opens \.onnx files"):
        open_exported(path, "openvino")
    for text, message in (
        (None, "no metadata of spikeseg"),
        ("{", "no JSON"),
        ("[]", "version None"),
        ('{"version": 2}', "version 2, this reads 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            decode_metadata(text, path)


def test_steps_that_are_all_the_same_are_computed_once() -> None:
    from spikeseg.platform.export.traced_program import ExportedForm

    for dynamics, steps in (("stateless", 1), ("temporal", 2)):
        torch.manual_seed(0)
        model = build_uncalibrated_segmentor(tiny_fpn(timesteps=2, dynamics=dynamics)).double()
        images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
        form = ExportedForm(settle(model, images), "prediction")
        assert form.computed_steps == steps
        with torch.no_grad():
            torch.testing.assert_close(form(images)[0], model(images).logits, rtol=1e-6, atol=1e-7)
