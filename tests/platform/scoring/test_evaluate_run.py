"""One report for every mode, exact over processes, equal to what the training measured."""

import csv
import json
from pathlib import Path

import pytest
from command import spikeseg
from trained_run import TrainedRun

from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.cluster.task_pool import PoolSize
from spikeseg.platform.evaluation.class_scores import InferenceSettings
from spikeseg.platform.prediction.network_forms import FormChoice
from spikeseg.platform.runs.predict_images import evaluate_checkpoint, load_model
from spikeseg.platform.scoring.evaluate_run import evaluate_run
from spikeseg.platform.scoring.image_worker import EvaluateRequest, set_levels
from spikeseg.platform.scoring.level_curve import evaluate_levels
from spikeseg.platform.scoring.report_files import find_worst, write_report_files


def ask(trained: TrainedRun, **more: object) -> EvaluateRequest:
    return EvaluateRequest(trained.folder, (), "val")._replace(**more)


def test_the_report_of_the_whole_image_is_what_training_scores(trained: TrainedRun) -> None:
    report, _ = evaluate_run(ask(trained, split="test"))
    before = evaluate_checkpoint(trained.folder, (), split="test")
    assert report["confusion"] == before["confusion"]
    for name, value in before["metrics"].items():
        assert report["metrics"][name] == value, name
    columns = ("class", "IoU", "Acc")
    assert [{key: line[key] for key in columns} for line in report["classes"]] == before["classes"]
    result = json.loads((trained.folder / "result.json").read_text())
    assert report["metrics"]["test/mIoU"] == result["metrics"]["test/mIoU"]


def test_images_add_up_to_the_split(trained: TrainedRun) -> None:
    report, worker = evaluate_run(ask(trained, energy=True))
    assert [image["row"] for image in report["images"]] == [0, 1, 2, 3]
    ids = [worker.dataset.row("val", number).id for number in range(4)]
    assert [image["id"] for image in report["images"]] == ids
    labelled = sum(image["labelled"] for image in report["images"])
    right = sum(image["labelled"] * image["aAcc"] / 100 for image in report["images"])
    assert labelled == sum(map(sum, report["confusion"]))
    assert right / labelled * 100 == pytest.approx(report["metrics"]["val/aAcc"], abs=1e-3)
    assert all(image["energy_mJ"] > 0 for image in report["images"])
    assert sum(item["pixels"] for item in report["calibration"]["bins"]) == labelled


def test_the_folded_form_is_scored_beside_the_trained_one(trained: TrainedRun) -> None:
    report, _ = evaluate_run(ask(trained, others=(FormChoice(folded=True),)))
    first, folded = report["forms"]
    assert (first["form"], first["different_pixels"]) == ("trained", 0)
    assert folded["form"] == "folded" and folded["different_percent"] < 5
    assert folded["metrics"]["val/mIoU"] == pytest.approx(first["metrics"]["val/mIoU"], abs=3)
    assert first["metrics"]["val/mIoU"] == report["metrics"]["val/mIoU"]


def test_a_window_that_holds_the_image_is_the_whole_image(trained: TrainedRun) -> None:
    whole, _ = evaluate_run(ask(trained))
    large = InferenceSettings(window=(64, 64), stride=(32, 32))
    shown, _ = evaluate_run(ask(trained, inference=large))
    assert shown["confusion"] == whole["confusion"]
    small = InferenceSettings(window=(16, 16), stride=(8, 8), scales=(1.0, 2.0), flip=True)
    other, _ = evaluate_run(ask(trained, inference=small))
    assert other["settings"]["window"] == [16, 16] and other["settings"]["flip"]
    assert sum(map(sum, other["confusion"])) == sum(map(sum, whole["confusion"]))
    assert other["calibration"] != whole["calibration"]
    assert set(other) == set(whole), "one schema for every mode"


def test_levels_cut_counts_off_and_keep_what_a_spike_counts_for(trained: TrainedRun) -> None:
    loaded = load_model(trained.folder)
    rules = [m.rule for m in loaded.model.modules() if hasattr(m, "rule")]
    set_levels(loaded, 2)
    after = [m.rule for m in loaded.model.modules() if hasattr(m, "rule")]
    assert after == [rule._replace(levels=2) for rule in rules]


def test_score_and_energy_at_other_timesteps_and_levels(trained: TrainedRun) -> None:
    told: list[str] = []
    own = load_model(trained.folder).resolved.config.model.neuron
    points = evaluate_levels(
        ask(trained),
        timesteps=[own.timesteps, 2 * own.timesteps],
        levels=[1, own.levels],
        tell=told.append,
    )
    assert len(points) == len(told) == 4
    assert [point["trained"] for point in points] == [False, True, False, False]
    report, _ = evaluate_run(ask(trained))
    assert points[1]["mIoU"] == report["metrics"]["val/mIoU"]
    # The network has no memory between steps: twice the steps cost twice and see the same.
    assert points[3]["mIoU"] == pytest.approx(points[1]["mIoU"], abs=1)
    assert points[3]["energy_mJ"] == pytest.approx(2 * points[1]["energy_mJ"], rel=1e-3)
    assert points[0]["firing_rate"] < points[1]["firing_rate"]


def test_json_csv_pictures_and_page_say_the_same(trained: TrainedRun, tmp_path: Path) -> None:
    report, worker = evaluate_run(ask(trained))
    page = write_report_files(report, worker, tmp_path / "out", worst=2)
    stored = json.loads((page.parent / "evaluation.json").read_text())
    assert stored == report and stored["version"] == 1
    with (page.parent / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [image["id"] for image in report["images"]]
    with (page.parent / "confusion.csv").open() as file:
        counts = [[int(value) for value in list(row.values())[1:]] for row in csv.DictReader(file)]
    assert counts == report["confusion"]
    for name in ("worst", "reliability", "confusion"):
        assert (page.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert f"{report['metrics']['val/mIoU']:.4f}" in text
    worst = find_worst(report, 2)
    assert worst[0]["mIoU"] == min(image["mIoU"] for image in report["images"])
    assert text.index(worst[0]["id"]) < text.index(worst[1]["id"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--split", "moon"), "split 'moon' has no rows"),
        (("--window", "wide"), "--window: must be HEIGHTxWIDTH in pixels, got 'wide'"),
        (("--window", "8x8"), "a window's height must be at least 16"),
        (("--stride", "8x8"), "--window and --stride are given together"),
        (("--scales", "1,x"), "--scales: must be numbers with commas, got '1,x'"),
        (("--levels", "0"), "--levels: must be whole numbers from 1 with commas, got '0'"),
        (("--timesteps", "1;2"), "--timesteps: must be whole numbers from 1"),
        (("--submission", "voc"), "--submission needs --output"),
        (("--runtime", "onnx"), "--exported FILE is given exactly with --runtime"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_is_refused_by_name(
    trained: TrainedRun,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    sentence: str,
) -> None:
    ran = spikeseg(capsys, "evaluate", str(trained.folder), *options)
    assert ran.code == 2 and sentence in ran.err


def test_a_submission_needs_the_benchmarks_classes(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ("evaluate", str(trained.folder), "--submission", "ade20k", "--output", str(tmp_path))
    ran = spikeseg(capsys, *line)
    assert ran.code == 2
    assert f"needs the {len(load_label_space('ade20k').classes)} classes of ade20k" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=pytest.mark.ray)])
def test_any_number_of_processes_gives_the_same_report(trained: TrainedRun, ray: bool) -> None:
    overrides = ("data.evaluation_batch=1",)
    seen: list[tuple[int, int]] = []
    one, _ = evaluate_run(ask(trained, overrides=overrides))
    two, _ = evaluate_run(
        ask(trained, overrides=overrides, pool=PoolSize(2, ray)),
        on_rows=lambda done, total: seen.append((done, total)),
    )
    assert two == one
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
