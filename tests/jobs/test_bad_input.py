"""A wrong request ends with one sentence that names the thing, and leaves nothing half-written."""

import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import spikeseg

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shapes"
    pack("shapes", Shapes(ShapesOptions(size=(32, 32), train=8, val=4, test=4)), Path(), folder)
    return folder


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A raw CamVid folder of two pairs a split."""
    source = tmp_path / "camvid"
    for split in ("train", "val", "test"):
        (source / split).mkdir(parents=True)
        (source / f"{split}annot").mkdir()
        stems = [f"{split}{i}" for i in range(2)]
        (source / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            cv2.imwrite(str(source / split / f"{stem}.png"), np.full((20, 30, 3), 90, np.uint8))
            cv2.imwrite(str(source / f"{split}annot" / f"{stem}.png"), np.ones((20, 30), np.uint8))
    return source


def packed(capsys: Capture, source: Path, output: Path) -> tuple[int, str]:
    ran = spikeseg(
        capsys,
        *("data", "pack", "camvid", "--allow-partial"),
        *("--source", str(source), "--output", str(output)),
    )
    return ran.code, ran.err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.max_step=3", "trainer.max_step: no such field, did you mean 'max_steps'?"),
        ("trainer.max_steps=many", "trainer.max_steps: got 'many'"),
        ("trainer.max_steps=0", "trainer.max_steps: got 0"),
        ("model.neuron.levels=0", "levels must be at least 1, got 0"),
        ("model.neuron.normalization=l2", "model.neuron.normalization: got 'l2'"),
        ("trainer.workers=9", "workers must not exceed micro_batches"),
        ("model.num_classes=4", "has 9 classes"),
        ("model.neuron.backend=cuda", "model.neuron.backend is 'cuda', but the tensors are on cpu"),
        ("optimizer.rules=[{match: nothing*}]", "no parameter's name matches"),
    ],
)
def test_a_wrong_value_is_found_before_work_starts(
    override: str, said: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    storage = tmp_path / "runs"
    line = ("train", "shapes_tiny", f"data.path={data}", override, "--storage", str(storage))
    ran = spikeseg(capsys, *line)
    assert ran.code == 2
    assert said in ran.err
    assert not list(storage.glob("*")), "nothing was started"


def test_an_unknown_recipe_gets_the_nearest_name(capsys: Capture) -> None:
    ran = spikeseg(capsys, "train", "shapes_tinny")
    assert ran.code == 2
    assert (
        "'shapes_tinny' is neither a shipped recipe nor a file, did you mean 'shapes_tiny'?"
        in ran.err
    )


def test_a_missing_data_folder_is_named(tmp_path: Path, capsys: Capture) -> None:
    ran = spikeseg(
        capsys,
        "train",
        "shapes_tiny",
        f"data.path={tmp_path / 'gone'}",
        "--storage",
        str(tmp_path / "r"),
    )
    assert ran.code == 2
    assert f"{tmp_path / 'gone'}: no such folder" in ran.err


def test_unwritable_storage_is_named(data: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "file"
    file.write_text("")
    ran = spikeseg(
        capsys, "train", "shapes_tiny", f"data.path={data}", "--storage", str(file / "below")
    )
    assert ran.code == 2
    assert f"storage {file / 'below'}: cannot be written" in ran.err


def test_resuming_an_unknown_run_lists_the_known_ones(tmp_path: Path, capsys: Capture) -> None:
    ran = spikeseg(capsys, "train", "--resume", "never", "--storage", str(tmp_path))
    assert ran.code == 2
    assert "no such run" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--resume", "{word}"),
        ("sweep", "demo", "--here", "--resume", "{word}"),
        ("evaluate", "{word}"),
        ("track", "sync", "{word}"),
        ("runs", "--sweep", "{word}"),
        ("train", "shapes_tiny", "init.segmentor={word}"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("word", ["\x1b[31mx", "a\nb", "x" * 300, "<b>x/../y</b>", "file:///t/.."])
def test_a_word_that_names_no_run_writes_nothing_and_no_escape(
    tmp_path: Path, capsys: Capture, data: Path, command: tuple[str, ...], word: str
) -> None:
    storage = tmp_path / "runs"
    storage.mkdir()
    words = [part.format(word=word) for part in command]
    if words[0] in ("train", "sweep") and "--resume" not in words:
        words.append(f"data.path={data}")
    ran = spikeseg(capsys, *words, "--storage", str(storage))
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert ran.err.strip("\n").replace("\n", " ").isprintable()
    assert list(tmp_path.rglob("*")) == [storage]


def test_a_port_in_use_is_named(tmp_path: Path, capsys: Capture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = spikeseg(capsys, "ui", "--storage", str(tmp_path), "--port", str(port))
    assert ran.code == 2
    assert f"--port {port}: cannot listen on 127.0.0.1" in ran.err


def test_the_ui_is_not_opened_to_others(tmp_path: Path, capsys: Capture) -> None:
    ran = spikeseg(capsys, "ui", "--storage", str(tmp_path), "--host", "0.0.0.0")
    assert ran.code == 2
    assert "not a loopback address" in ran.err


def test_jobs_are_not_sent_to_an_open_address(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    ran = spikeseg(capsys, "submit", "--address", "http://192.0.2.7:8265", "--", "doctor")
    assert ran.code == 2
    assert "not a loopback address, and there is no token" in ran.err


def test_an_empty_split_is_named(camvid: Path, tmp_path: Path, capsys: Capture) -> None:
    (camvid / "val.txt").write_text("\n")
    code, error = packed(capsys, camvid, tmp_path / "out")
    assert code == 2
    assert "val.txt: the list of the split is empty" in error


def test_unequal_sizes_name_both_files(camvid: Path, tmp_path: Path, capsys: Capture) -> None:
    cv2.imwrite(str(camvid / "valannot" / "val1.png"), np.ones((20, 31), np.uint8))
    code, error = packed(capsys, camvid, tmp_path / "out")
    assert code == 1
    assert "val1.png: the label is 31 x 20, its image val1.png is 30 x 20" in error
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_label_value_outside_the_space_is_counted(
    camvid: Path, tmp_path: Path, capsys: Capture
) -> None:
    label = np.ones((20, 30), np.uint8)
    label[:2, :3] = 12
    cv2.imwrite(str(camvid / "testannot" / "test0.png"), label)
    code, error = packed(capsys, camvid, tmp_path / "out")
    assert code == 1
    assert "test0.png: label values outside the label space camvid: 12 (6 pixels)" in error
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_damaged_manifest_is_named(data: Path, tmp_path: Path, capsys: Capture) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    os.truncate(broken / "manifest.json", 100)
    ran = spikeseg(
        capsys, "train", "shapes_tiny", f"data.path={broken}", "--storage", str(tmp_path / "r")
    )
    assert ran.code == 2
    assert f"{broken / 'manifest.json'}: not a readable manifest" in ran.err


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path, capsys: Capture) -> None:
    ran = spikeseg(capsys, "evaluate", str(tmp_path))
    assert ran.code == 2
    assert f"{tmp_path}: neither a checkpoint nor the folder of a run" in ran.err
