"""One path through the house without Ray: pack, train, evaluate, predict, energy, tracking."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import spikeseg
from PIL import Image

from spikeseg.datasets.packed.reader import PackedDataset

SMALL = (
    "trainer.workers=0",
    "trainer.max_steps=4",
    "trainer.evaluate_every=2",
    "trainer.micro_batch_size=4",
    "data.transform.crop=[32, 32]",
    "trainer.energy_images=2",
    "trainer.log_every=1",
    # The one that published weights have, for `convert`.
    "model.query.pyramid=depthwise",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packed data and one finished training, made by the command in a shell."""
    home = tmp_path_factory.mktemp("home")
    options = ["--size", "32", "32", "--rows", "24", "6", "5", "--seed", "3"]
    for line in (
        ["data", "pack", "shapes", "--output", str(home / "data"), *options],
        [
            "train",
            "shapes_tiny",
            f"data.path={home / 'data'}",
            *SMALL,
            "--storage",
            str(home / "runs"),
        ],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "spikeseg.jobs.cli", *line], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def run_folder(home: Path) -> Path:
    return next((home / "runs").glob("shapes_tiny-*"))


def test_a_training_leaves_result_checkpoints_and_pictures(run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    assert result["split"] == "test"
    assert 0 <= result["metrics"]["test/mIoU"] <= 100
    counted = np.array(result["confusion"]).sum()
    assert counted == 5 * 32 * 32, "every test pixel is counted once, at label resolution"
    assert {p.name for p in (run_folder / "checkpoints").iterdir()} == {
        "step-00000002",
        "step-00000004",
    }
    for name in ("contact_sheet", "curves"):
        assert Image.open(run_folder / "figures" / f"{name}.png").width > 200


def test_test_is_scored_once_and_val_chooses(run_folder: Path) -> None:
    records = [
        json.loads(line)
        for line in (run_folder / "journal" / "records.jsonl").open(encoding="utf-8")
    ]
    scored = [r for r in records if r["kind"] == "metrics" and "test/mIoU" in r["values"]]
    vals = [r["values"]["val/mIoU"] for r in records if "val/mIoU" in r.get("values", {})]
    result = json.loads((run_folder / "result.json").read_text())
    assert len(scored) == 1
    assert len(vals) == 2
    assert result["metrics"]["val/mIoU"] == max(vals)


def test_mlflow_holds_the_run_with_its_params_tags_metrics_and_data(home: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.neuron.levels"] == "4"
    assert {"T", "D", "normalization", "config_digest", "data_digest", "seed"} <= set(run.data.tags)
    wanted = {"train/loss", "train/lr", "val/mIoU", "test/mIoU", "energy/mJ", "best/val_mIoU"}
    assert wanted <= set(run.data.metrics)
    digests = [digest[:36] for digest in PackedDataset.open(home / "data").split_digests.values()]
    assert run.inputs is not None
    assert sorted(item.dataset.digest for item in run.inputs.dataset_inputs) == sorted(digests)
    assert "config.yaml" in [item.path for item in client.list_artifacts(run.info.run_id)]


def test_evaluate_repeats_the_score_of_the_training(
    home: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = spikeseg(capsys, "evaluate", str(run_folder), f"data.path={home / 'data'}", "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    result = json.loads((run_folder / "result.json").read_text())
    assert report["metrics"]["test/mIoU"] == result["metrics"]["test/mIoU"]
    assert report["confusion"] == result["confusion"]
    assert report["classes"][0]["class"] == "background"


def test_predict_writes_a_palette_png_of_labels_and_an_overlay(
    home: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # An odd size, larger than what was trained on.
    row = PackedDataset.open(home / "data").row("test", 0)
    picture = Image.fromarray(row.image).resize((71, 53))
    picture.save(tmp_path / "one.png")
    output = tmp_path / "out"
    ran = spikeseg(
        capsys, "predict", str(run_folder), str(tmp_path / "one.png"), "--output", str(output)
    )
    assert ran.code == 0
    label = Image.open(output / "one_label.png")
    assert (label.mode, label.size) == ("P", (71, 53))
    assert np.array(label).max() < 9
    overlay = Image.open(output / "one_overlay.png")
    assert (overlay.mode, overlay.size) == ("RGB", (71, 53))


def test_predict_turns_a_photo_upright_and_takes_any_mode(
    home: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = PackedDataset.open(home / "data").row("test", 0).image
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(image[:20]).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(image).convert("RGBA").save(tmp_path / "clear.png")
    files = [str(tmp_path / name) for name in ("turned.jpg", "clear.png")]
    ran = spikeseg(capsys, "predict", str(run_folder), *files, "--output", str(tmp_path / "out"))
    assert ran.code == 0, ran.err
    assert Image.open(tmp_path / "out" / "turned_label.png").size == (20, 32)
    assert Image.open(tmp_path / "out" / "clear_label.png").size == (32, 32)


@pytest.mark.parametrize(
    "line",
    [
        ("evaluate", "latest", "--split", "val"),
        ("energy", "shapes"),
        ("predict", "shapes_tiny", "PICTURE", "--output", "OUT/predicted"),
        ("convert", "latest", "--output", "OUT/converted.pth"),
        ("track", "sync", "latest"),
        ("report", "latest", "--output", "OUT/report.html"),
        ("replay", "shapes"),
        ("train", "--resume", "latest"),
    ],
    ids=lambda line: line[0],
)
def test_every_verb_takes_the_word_that_runs_shows(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: tuple[str, ...]
) -> None:
    picture = tmp_path / "one.png"
    Image.fromarray(PackedDataset.open(home / "data").row("test", 0).image).save(picture)
    words = [word.replace("OUT", str(tmp_path)).replace("PICTURE", str(picture)) for word in line]
    ran = spikeseg(capsys, *words, "--storage", str(home / "runs"))
    assert ran.code == 0, ran.err


def test_a_training_prints_the_word_that_later_commands_take(
    home: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = ("--storage", str(home / "runs"))
    ran = spikeseg(capsys, "train", "--resume", run_folder.name, *storage)
    assert f"run:           {run_folder.name}" in ran.out
    assert f"spikeseg evaluate {run_folder.name} {' '.join(storage)}" in ran.out


def test_energy_sums_to_its_rows_and_prints_its_rule(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = spikeseg(capsys, "energy", str(run_folder), "--json")
    report = json.loads(ran.out)
    assert report["total_mj"] == pytest.approx(sum(row["mj"] for row in report["rows"]))
    first = report["rows"][0]
    assert not first["spiking_input"], "the first convolution sees the image"
    assert first["mj"] == pytest.approx(first["macs"] * 4.6e-9)
    spiking = next(row for row in report["rows"] if row["spiking_input"])
    assert spiking["mj"] == pytest.approx(spiking["operations"] * 0.9e-9)
    # Spikes at a border reach fewer outputs than MACs x rate says.
    assert 0 < spiking["operations"] <= spiking["shortcut"] * (1 + 1e-9)
    assert report["rules"]["paper"] == pytest.approx(report["total_mj"])
    assert report["rules"]["paper_layers"] < report["total_mj"] < report["rules"]["memory"]
    images = report["images"]
    assert images["max"] >= images["mean"] == pytest.approx(report["total_mj"])
    assert "4.6" in report["rule"] and "0.9" in report["rule"]


def test_a_finished_run_is_not_trained_again(
    home: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_folder / "result.json").stat().st_mtime_ns
    ran = spikeseg(capsys, "train", "--resume", run_folder.name, "--storage", str(home / "runs"))
    assert ran.code == 0
    assert "finished already" in ran.out
    assert (run_folder / "result.json").stat().st_mtime_ns == before


def test_the_saved_configuration_alone_rebuilds_the_run(
    home: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = spikeseg(
        capsys, "train", str(run_folder / "config.yaml"), "--storage", str(tmp_path / "again")
    )
    assert ran.code == 0, ran.err
    again = next((tmp_path / "again").glob("shapes_tiny-*"))
    for name in ("model", "optimizer"):
        path = Path("checkpoints") / "step-00000004" / f"{name}.safetensors"
        assert (again / path).read_bytes() == (run_folder / path).read_bytes(), name


_BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "mlflow", "optuna"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from spikeseg.jobs.cli import root, run
run(root, sys.argv[1:])
"""


@pytest.mark.slow
def test_training_and_use_need_neither_ray_nor_mlflow_nor_optuna(
    home: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    lines = [
        ["train", "shapes_tiny", f"data.path={home / 'data'}", *SMALL, "--storage", str(storage)],
    ]
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-c", _BLOCKED, *line], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "not sent to MLflow" in done.stderr  # pyright: ignore[reportPossiblyUnboundVariable]
    folder = next(storage.glob("shapes_tiny-*"))
    row = PackedDataset.open(home / "data").row("test", 0)
    Image.fromarray(row.image).save(tmp_path / "one.png")
    for line in (
        ["evaluate", str(folder)],
        ["predict", str(folder), str(tmp_path / "one.png"), "--output", str(tmp_path / "out")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", _BLOCKED, *line], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["train", "sweep", "data", "submit", "demo"])
def test_every_verb_is_also_a_module(verb: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"spikeseg.jobs.{verb}", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
