"""What a run holds in MLflow: names from one list, pictures, tables, inputs and checkpoints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_contents
from PIL import Image
from trained_run import TrainedRun

from spikeseg.platform.tracking.metric_table import METRICS

NOT_EVERY_RUN = {name for name, metric in METRICS.items() if metric.needs} | {
    "train/loss_pixel",
    "train/loss_semantic",
    "train/loss_lovasz",
    "train/loss_mask",
    "train/loss_dice",
    "train/loss_class",
    "system/gpu_memory_usage_megabytes",
    "system/gpu_utilization_percentage",
    "system/gpu_power_usage_watts",
}


def artifacts(trained: TrainedRun, folder: str = "") -> list[str]:
    found = []
    for entry in trained.client.list_artifacts(trained.run_id, folder or None):
        found += artifacts(trained, entry.path) if entry.is_dir else [entry.path]
    return found


def read(trained: TrainedRun, path: str, tmp_path: Path) -> Path:
    return Path(trained.client.download_artifacts(trained.run_id, path, str(tmp_path)))


def test_every_metric_has_a_name_of_the_list(trained: TrainedRun) -> None:
    found = set(trained.client.get_run(trained.run_id).data.metrics)
    assert found <= set(METRICS)
    assert set(METRICS) - found <= NOT_EVERY_RUN
    assert len(METRICS) < 60


def test_every_tag_has_a_name_of_the_list(trained: TrainedRun) -> None:
    tags = trained.client.get_run(trained.run_id).data.tags
    named = run_contents.names("Tags")
    assert {k for k in named if k.startswith(("mlflow.", "spikeseg."))} <= {*tags}
    ours = {k for k in tags if not k.startswith(("mlflow.", "version.", "spikeseg."))}
    listed = {k for k in named if not k.startswith(("mlflow.", "spikeseg."))}
    assert ours <= listed
    optional = {
        "sweep",
        "trial",
        "run_name",
        "ray_job_id",
        "replay_of",
        "figures_failed",
        "model_failed",
        "records_dropped",
        "records_damaged",
        "git_sha",
        "dirty",
        "code_diff_digest",
    }
    assert listed - ours <= optional
    assert not {"figures_failed", "model_failed"} & {*tags}
    assert (tags["T"], tags["D"], tags["normalization"]) == ("1", "4", "levels")


def test_every_artifact_of_the_list_is_there(trained: TrainedRun) -> None:
    found = artifacts(trained)
    listed = run_contents.names("Artifacts")
    missing = [path for path in listed if not any(item.startswith(path) for item in found)]
    assert not missing


def test_the_best_value_and_its_step_are_metrics(trained: TrainedRun) -> None:
    metrics = trained.client.get_run(trained.run_id).data.metrics
    history = trained.client.get_metric_history(trained.run_id, "val/mIoU")
    best = max(history, key=lambda point: (point.value, -point.step))
    assert metrics["best/val_mIoU"] == best.value
    assert metrics["best/step"] == best.step


def test_every_evaluation_leaves_one_picture_of_the_same_rows(
    trained: TrainedRun, tmp_path: Path
) -> None:
    pictures = sorted(p for p in artifacts(trained, "images") if "val~rows+" in p)
    steps = [int(Path(path).name.split("+")[2]) for path in pictures if path.endswith(".png")]
    assert steps == [0, 2, 4]
    assert len(pictures) == 2 * len(steps)
    whole = [
        np.asarray(Image.open(read(trained, path, tmp_path)))
        for path in pictures
        if path.endswith(".png")
    ]
    # Image and truth are the first two of five columns, and the same every time.
    width = 2 * whole[0].shape[1] // 5 - 10
    top = whole[0].shape[0] // 3
    # Below the caption, which has the share of pixels that are right.
    for later in whole[1:]:
        assert np.array_equal(whole[0][46:top, :width], later[46:top, :width])


def test_tables_hold_every_class_and_every_layer(trained: TrainedRun, tmp_path: Path) -> None:
    classes = json.loads(read(trained, "tables/val_classes/00000004.json", tmp_path).read_text())
    assert len(classes) == 9
    defined = [row["IoU"] for row in classes if row["IoU"] is not None]
    last = trained.client.get_metric_history(trained.run_id, "val/mIoU")[-1]
    assert np.mean(defined) == pytest.approx(last.value, abs=1e-3)
    layers = json.loads(read(trained, "tables/layers/00000004.json", tmp_path).read_text())
    energy = trained.client.get_metric_history(trained.run_id, "energy/mJ")[-1]
    assert sum(row["mj"] for row in layers) == pytest.approx(energy.value)
    assert all(row["macs"] > 0 for row in layers)


def test_the_data_of_every_split_is_an_input_with_its_digest(trained: TrainedRun) -> None:
    run = trained.client.get_run(trained.run_id)
    inputs = run.inputs.dataset_inputs
    assert {item.tags[0].value for item in inputs} == {"train", "val", "test"}
    digests = {item.tags[0].value: item.dataset.digest for item in inputs}
    profiles = {item.tags[0].value: json.loads(item.dataset.profile) for item in inputs}
    assert len(set(digests.values())) == 3
    for profile in profiles.values():
        assert profile["data_digest"] == run.data.tags["data_digest"]
        assert profile["rows"] > 0 and profile["classes"] == 9
        assert sum(profile["pixel_share_percent"].values()) == pytest.approx(100, abs=0.1)


def test_the_best_checkpoint_among_the_artifacts_is_whole(
    trained: TrainedRun, tmp_path: Path
) -> None:
    from spikeseg.platform.checkpoint.checkpoint import read_checkpoint

    metrics = trained.client.get_run(trained.run_id).data.metrics
    step = int(metrics["best/step"])
    folder = read(trained, "checkpoints/best", tmp_path) / f"step-{step:08d}"
    assert read_checkpoint(folder).step == step


def test_the_description_holds_the_line_that_repeats_the_run(trained: TrainedRun) -> None:
    note = trained.client.get_run(trained.run_id).data.tags["mlflow.note.content"]
    assert "spikeseg train shapes_tiny" in note
    assert "trainer.max_steps=4" in note


def test_the_page_begins_with_the_result_and_parameters_are_few(
    trained: TrainedRun,
) -> None:
    run = trained.client.get_run(trained.run_id)
    sentence, strip = run.data.tags["mlflow.note.content"].split("\n\n")[:2]
    assert f"{run.data.metrics['val/mIoU']:.1f} % mIoU on val" in sentence
    assert f"run_uuid={trained.run_id}" in strip
    assert len(run.data.params) <= 20
    assert run.data.params["trainer.max_steps"] == "4"


def models_of(trained: TrainedRun) -> list[Any]:
    """Logged models of the run; other trainings of the session have some in its experiment."""
    experiment = trained.client.get_run(trained.run_id).info.experiment_id
    models = trained.client.search_logged_models([experiment])
    return [model for model in models if model.source_run_id == trained.run_id]


def test_the_model_is_there_once_with_its_scores_and_labels_images(trained: TrainedRun) -> None:
    import mlflow

    run = trained.client.get_run(trained.run_id)
    (model,) = models_of(trained)
    assert (str(model.status), model.source_run_id) == ("READY", trained.run_id)
    assert model.params == {"T": "1", "D": "4", "normalization": "levels"}
    scores = {m.key: (m.value, m.dataset_name, m.dataset_digest) for m in model.metrics}
    digests = {i.tags[0].value: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert scores["val/mIoU"] == (run.data.metrics["best/val_mIoU"], "shapes-val", digests["val"])
    assert scores["test/mIoU"][1:] == ("shapes-test", digests["test"])
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    labels = loaded.predict(images)
    assert labels.shape == (2, 48, 64) and labels.dtype == np.uint8 and labels.max() < 9
    assert not [p for p in Path(trained.folder / "model").iterdir() if p.suffix == ".pkl"]


def test_sending_a_run_again_doubles_no_model_and_no_point(trained: TrainedRun) -> None:
    from spikeseg.platform.tracking.upload.uploader import sync

    run = trained.client.get_run(trained.run_id)
    curve = trained.client.get_metric_history(trained.run_id, "val/mIoU")
    journal = trained.folder / "journal"
    (journal / "sent.json").unlink()
    experiment = trained.client.get_experiment(run.info.experiment_id)
    assert sync(journal, f"sqlite:///{trained.storage / 'mlflow.db'}", experiment.name)
    assert len(models_of(trained)) == 1
    again = trained.client.get_run(trained.run_id)
    assert len(again.outputs.model_outputs) == 1
    assert trained.client.get_metric_history(trained.run_id, "val/mIoU") == curve
