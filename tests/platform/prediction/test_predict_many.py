"""Predictions of many sources: what fails is named, what is done is known, nothing waits."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from command import spikeseg
from PIL import Image
from trained_run import TrainedRun

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.cluster.task_pool import PoolSize
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.prediction.predict_many import PredictRequest, PredictSummary, predict_many
from spikeseg.platform.prediction.predictor import PredictSettings
from spikeseg.platform.prediction.results_table import Result
from spikeseg.platform.prediction.sources import SourceList
from spikeseg.platform.prediction.video import LABEL_ENDING, VideoFacts, VideoWriter

LABEL = PredictSettings(("label",))


@pytest.fixture
def pictures(trained: TrainedRun, tmp_path: Path) -> Path:
    """Five pictures of two sizes."""
    dataset = PackedDataset.open(str(trained.storage / "shapes"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        image = Image.fromarray(dataset.row("train", number).image)
        image.resize((32, 32) if number % 3 else (48, 32)).save(folder / f"{number}.png")
    return folder


def ask(trained: TrainedRun, output: Path, settings: PredictSettings = LABEL) -> PredictRequest:
    return PredictRequest(trained.folder, output, settings, batch=2)


def go(request: PredictRequest, folder: Path, *, again: bool = False) -> PredictSummary:
    return predict_many(request, SourceList([str(folder)]), skip_existing=again)


def read_labels(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.rglob("*_label.png")}


def test_a_broken_picture_is_named_and_the_others_go_on(
    trained: TrainedRun, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "1.png").write_bytes(b"no picture")
    (pictures / "2b.jpg").write_bytes(b"")
    np.save(pictures / "9.npy", np.zeros((32, 32, 4), np.uint8))
    Image.new("RGB", (8, 8)).save(pictures / "tiny.png")
    output = tmp_path / "out"
    ran = spikeseg(capsys, "predict", str(trained.folder), str(pictures), "--output", str(output))
    assert ran.code == 1
    for line in (
        "1.png: not an image",
        "2b.jpg: the file is empty",
        "9.npy: the image has 4 channels, the network takes 3",
        "tiny.png: 8 x 8 pixels would enter the network",
    ):
        assert f"failed: {pictures}/{line}" in ran.out
    assert "predicted 4, kept 0, failed 4" in ran.out
    with (output / "predictions.csv").open() as file:
        rows = {Path(row["source"]).name: row for row in csv.DictReader(file)}
    assert rows["0.png"]["files"] == "0_label.png;0_overlay.png"
    assert (rows["0.png"]["height"], rows["0.png"]["width"]) == ("32", "48")
    assert rows["1.png"]["status"] == "failed" and "not an image" in rows["1.png"]["error"]
    assert len(rows) == 8 and len(read_labels(output)) == 4


def test_batches_change_no_label(trained: TrainedRun, pictures: Path, tmp_path: Path) -> None:
    go(ask(trained, tmp_path / "two"), pictures)
    go(ask(trained, tmp_path / "one")._replace(batch=1), pictures)
    assert read_labels(tmp_path / "one") == read_labels(tmp_path / "two")
    assert len(read_labels(tmp_path / "one")) == 5


def test_what_the_same_checkpoint_and_settings_made_is_kept(
    trained: TrainedRun, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    request = ask(trained, output)
    assert go(request, pictures)[:3] == (5, 0, 0)
    assert go(request, pictures, again=True)[:3] == (0, 5, 0)
    (output / "3_label.png").unlink()
    Image.new("RGB", (40, 40)).save(pictures / "4.png")
    assert go(request, pictures, again=True)[:3] == (2, 3, 0)
    assert Image.open(output / "4_label.png").size == (40, 40)
    tiled = ask(trained, output, PredictSettings(("label",), tile=64))
    assert go(tiled, pictures, again=True)[:3] == (5, 0, 0)
    checkpoints = sorted((trained.folder / "checkpoints").glob("step-*"))
    best = json.loads((trained.folder / "result.json").read_text())["best_step"]
    other = next(path for path in checkpoints if path.name != f"step-{best:08d}")
    changed = tiled._replace(checkpoint=other)
    assert go(changed, pictures, again=True)[:3] == (5, 0, 0)
    assert go(changed, pictures, again=True)[:3] == (0, 5, 0)


def test_a_line_that_a_kill_cut_off_is_done_again(
    trained: TrainedRun, pictures: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    go(ask(trained, output), pictures)
    journal = output / "predictions.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    assert go(ask(trained, output), pictures, again=True)[:3] == (1, 4, 0)
    assert go(ask(trained, output), pictures, again=True)[:3] == (0, 5, 0)


def test_a_failed_source_is_tried_again(
    trained: TrainedRun, pictures: Path, tmp_path: Path
) -> None:
    good = (pictures / "2.png").read_bytes()
    (pictures / "2.png").write_bytes(b"no picture")
    output = tmp_path / "out"
    assert go(ask(trained, output), pictures)[:3] == (4, 0, 1)
    assert go(ask(trained, output), pictures, again=True)[:3] == (0, 4, 1)
    (pictures / "2.png").write_bytes(good)
    assert go(ask(trained, output), pictures, again=True)[:3] == (1, 4, 0)


def test_the_first_result_does_not_wait_for_the_second_name(
    trained: TrainedRun, pictures: Path, tmp_path: Path
) -> None:
    written = threading.Event()

    def pipe() -> Iterator[str]:
        yield str(pictures / "0.png")
        assert written.wait(60), "nothing was predicted while the pipe was silent"
        yield str(pictures / "1.png")

    def see(result: Result, number: int) -> None:
        assert (tmp_path / "out" / result.files[0]).exists()
        written.set()

    sources = SourceList(["-"], pipe=pipe())
    summary = predict_many(ask(trained, tmp_path / "out"), sources, on_result=see)
    assert summary.done == 2


def test_probabilities_and_coco_agree_with_the_label(
    trained: TrainedRun, pictures: Path, tmp_path: Path
) -> None:
    settings = PredictSettings(("label", "probabilities", "coco"))
    output = tmp_path / "out"
    summary = predict_many(
        ask(trained, output, settings), SourceList([str(pictures)]), table="parquet"
    )
    label = np.array(Image.open(output / "0_label.png"))
    shares = np.load(output / "0_probabilities.npy")
    assert (shares.shape, shares.dtype) == ((9, 32, 48), np.float16)
    assert np.allclose(shares.astype(np.float32).sum(0), 1, atol=0.01)
    picked = np.take_along_axis(shares, label[None].astype(np.int64), 0)[0]
    assert (picked >= shares.max(0) - 2e-3).all()
    coco = json.loads((output / "coco.json").read_text())
    first = [item for item in coco["annotations"] if item["image_id"] == 1]
    areas = {item["category_id"]: item["area"] for item in first}
    assert areas == {int(k): int((label == k).sum()) for k in np.unique(label)}
    table = pq.read_table(summary.table).to_pylist()
    assert table[0]["files"] == ["0_label.png", "0_coco.json", "0_probabilities.npy"]
    assert not list(output.rglob(".*")), "no temporary file is left"


def test_a_tile_larger_than_the_image_changes_nothing(
    trained: TrainedRun, pictures: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (100, 80), "red").save(pictures / "large.png")
    go(ask(trained, tmp_path / "whole"), pictures)
    go(ask(trained, tmp_path / "tiled", PredictSettings(("label",), tile=64)), pictures)
    whole, tiled = read_labels(tmp_path / "whole"), read_labels(tmp_path / "tiled")
    assert {name for name in whole if whole[name] != tiled[name]} <= {"large_label.png"}
    assert Image.open(tmp_path / "tiled" / "large_label.png").size == (100, 80)


def test_a_packed_split_is_predicted_row_by_row(trained: TrainedRun, tmp_path: Path) -> None:
    data = str(trained.storage / "shapes")
    with pytest.raises(ConfigError, match="--split must name one of its splits"):
        SourceList([data])
    summary = predict_many(ask(trained, tmp_path / "out"), SourceList([data], split="test"))
    assert summary.done == 3
    assert len(list((tmp_path / "out" / "test").glob("*_label.png"))) == 3


def test_a_video_becomes_a_lossless_label_video(trained: TrainedRun, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frames = [generator.integers(0, 255, (32, 48, 3), dtype=np.uint8) for _ in range(5)]
    path = tmp_path / "clip.mkv"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 10.0, (48, 32))
    for frame in frames:
        writer.write(frame)
    writer.release()
    output = tmp_path / "out"
    request = ask(trained, output, PredictSettings(("label", "overlay")))
    assert predict_many(request, SourceList([str(path)])).done == 1
    capture = cv2.VideoCapture(str(path))
    for number in range(5):
        Image.fromarray(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)).save(
            tmp_path / f"frame{number}.png"
        )
    predict_many(request, SourceList([str(tmp_path / "frame?.png")]))
    labels = cv2.VideoCapture(str(output / "clip_label.mkv"))
    for number in range(5):
        frame = labels.read()[1]
        expected = np.array(Image.open(output / f"frame{number}_label.png"))
        assert (frame[..., 0] == expected).all()
    assert not labels.read()[0]
    assert cv2.VideoCapture(str(output / "clip_overlay.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5


def test_a_frame_of_odd_sides_gets_its_last_line_twice(tmp_path: Path) -> None:
    label = np.arange(33 * 47, dtype=np.uint8).reshape(33, 47) % 9
    path = tmp_path / "odd_label.mkv"
    facts = VideoFacts(33, 47, 10.0, 1)
    with VideoWriter({LABEL_ENDING: path}, facts, load_label_space("camvid")) as writer:
        writer.write(np.zeros((33, 47, 3), np.uint8), label)
    frame = cv2.VideoCapture(str(path)).read()[1][..., 0]
    assert frame.shape == (34, 48)
    assert (frame[:33, :47] == label).all() and (frame[33, :47] == label[-1]).all()


def test_a_broken_video_is_named(trained: TrainedRun, pictures: Path, tmp_path: Path) -> None:
    (pictures / "clip.mp4").write_bytes(b"no video")
    seen: list[Result] = []
    predict_many(
        ask(trained, tmp_path / "out"),
        SourceList([str(pictures)]),
        on_result=lambda result, number: seen.append(result),
    )
    (failed,) = [result for result in seen if result.status == "failed"]
    assert "clip.mp4: not a video" in failed.error and len(seen) == 6


def test_torch_folds_unless_the_trained_form_is_asked_for(
    trained: TrainedRun, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {}
    for form in ((), ("--folded",), ("--trained",)):
        output = tmp_path / "".join(("out", *form))
        line = ("predict", str(trained.folder), str(pictures), "--output", str(output))
        assert spikeseg(capsys, *line, "--write", "label", *form).code == 0
        with (output / "predictions.csv").open(newline="") as table:
            (settings[form],) = {row["settings"] for row in csv.DictReader(table)}
    assert settings[()] == settings[("--folded",)] != settings[("--trained",)]
    # The same function in another order of sums: hardly a label moves.
    folded, plain = read_labels(tmp_path / "out"), read_labels(tmp_path / "out--trained")
    assert folded.keys() == plain.keys() and len(folded) == 5
    for name in folded:
        maps = [np.array(Image.open(tmp_path / out / name)) for out in ("out", "out--trained")]
        assert np.mean(maps[0] != maps[1]) < 0.05


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--write", "panoptic"), "--write panoptic needs a run whose data.task is panoptic"),
        (("--tile", "8"), "--tile must be from 64 to 4096 pixels, got 8"),
        (("--runtime", "onnx"), "--exported FILE is given exactly with --runtime"),
        (("--trained", "--runtime", "onnx"), "--trained is a form of torch"),
        (("--folded", "--runtime", "openvino"), "--exported FILE is given exactly"),
        (("--device", "cuda"), "torch sees no GPU"),
    ],
    ids=["panoptic", "tile", "runtime", "trained", "folded", "device"],
)
def test_a_wrong_request_is_refused_before_work(
    trained: TrainedRun,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    sentence: str,
) -> None:
    line = ("predict", str(trained.folder), str(pictures), "--output", str(tmp_path / "out"))
    ran = spikeseg(capsys, *line, *options)
    assert ran.code == 2 and sentence in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_make_the_same_files(
    trained: TrainedRun, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "1.png").write_bytes(b"no picture")
    go(ask(trained, tmp_path / "one"), pictures)
    request = ask(trained, tmp_path / "two")._replace(pool=PoolSize(2))
    assert go(request, pictures)[:3] == (4, 0, 1)
    assert read_labels(tmp_path / "one") == read_labels(tmp_path / "two")
    assert go(request, pictures, again=True)[:3] == (0, 4, 1)


@pytest.mark.slow
@pytest.mark.ray
def test_two_thousand_images_on_ray_survive_a_kill(trained: TrainedRun, tmp_path: Path) -> None:
    folder, output = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    image = PackedDataset.open(str(trained.storage / "shapes")).row("train", 0).image
    Image.fromarray(image).save(folder / "0000.png")
    for number in range(1, 2000):
        shutil.copy(folder / "0000.png", folder / f"{number:04d}.png")
    line = [sys.executable, "-m", "spikeseg.jobs.cli", "predict", str(trained.folder), str(folder)]
    line += ["--output", str(output), "--write", "label", "--ray", "--processes", "2"]
    journal = output / "predictions.jsonl"
    first = subprocess.Popen(line, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 300):
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    finished = journal.read_bytes().count(b"\n")
    assert 300 < finished < 2000
    second = subprocess.run([*line, "--skip-existing"], capture_output=True, text=True, timeout=500)
    assert second.returncode == 0, second.stderr
    kept = int(second.stdout.split("kept ")[1].split(",")[0])
    assert finished - 1 <= kept <= finished
    assert f"predicted {2000 - kept}, kept {kept}, failed 0" in second.stdout
    assert len({path.read_bytes() for path in output.glob("*_label.png")}) == 1
    assert len(list(output.glob("*_label.png"))) == 2000
