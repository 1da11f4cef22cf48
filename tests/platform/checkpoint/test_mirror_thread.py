"""A mirror that hangs, fails or is slow costs lines, never a step of training."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs
from tiny import experiment, pack_shapes

from spikeseg.platform.checkpoint import background_writer, mirror
from spikeseg.platform.checkpoint.background_writer import CheckpointWriter
from spikeseg.platform.checkpoint.checkpoint import read_checkpoint
from spikeseg.platform.checkpoint.mirror import Mirror, find_newest
from spikeseg.platform.checkpoint.run_folder import FencedError, RunFolder
from spikeseg.platform.config.recipes import Resolved
from spikeseg.platform.train.trainer import train

STATE: dict[str, Any] = {"history": []}


class Store:
    """A local file system whose requests for some files wait until it is `open`.

    Attributes:
        open: Set where requests are answered.
        asked: Paths that were written, or are waited for.
        held: Part of the paths that wait.
    """

    def __init__(self, held: str = "checkpoints/") -> None:
        self._local = fs.LocalFileSystem()
        self.open = threading.Event()
        self.asked: list[str] = []
        self.held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._local, name)

    def open_output_stream(self, path: str) -> Any:
        self.asked.append(path)
        if self.held in path:
            self.open.wait(60)
        return self._local.open_output_stream(path)

    def get_file_info(self, what: Any) -> Any:
        if isinstance(what, fs.FileSelector) and self.held in f"{what.base_dir}/":
            self.open.wait(60)
        return self._local.get_file_info(what)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Store()
    monkeypatch.setattr(mirror, "open_file_system", lambda uri: (made, uri.removeprefix("file://")))
    yield made
    made.open.set()


def tensors(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"weight": torch.full((8,), float(step))}}


def opened(tmp_path: Path, **options: Any) -> tuple[RunFolder, CheckpointWriter, list[str]]:
    run = RunFolder(tmp_path / "run")
    run.claim()
    lines: list[str] = []
    copies = Mirror((tmp_path / "far").as_uri(), "run")
    copies.claim(run)
    writer = CheckpointWriter(
        run, newest=1, every=None, mirror=copies, tell=lines.append, **options
    )
    return run, writer, lines


def wait_for(reached: Any) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def kept(folder: Path) -> list[int]:
    return sorted(read_checkpoint(p).step for p in (folder / "checkpoints").glob("step-*"))


def test_while_a_copy_hangs_saves_go_on_and_the_newest_is_copied_next(
    tmp_path: Path, store: Store
) -> None:
    run, writer, lines = opened(tmp_path)
    for step in (1, 2, 3, 4):
        writer.save(step, tensors(step), STATE, best_step=None)
        writer.flush()
        wait_for(lambda: any("step-00000001" in path for path in store.asked))
    # What is being read stays, though one checkpoint is to be kept.
    assert kept(run.path) == [1, 4]
    store.open.set()
    writer.close()
    assert writer.mirror_lacks is None
    # Mirrored retention follows the folder's, which lets go of what was read at the next save.
    assert kept(tmp_path / "far" / "run") == [1, 4]
    assert not any("step-00000002" in path or "step-00000003" in path for path in store.asked)
    assert [line.partition(": ")[2] for line in lines] in (
        [],
        ["waiting at most 60 s for the copy of step 4"],
    )


def test_what_the_mirror_lacks_at_the_end_is_said_after_a_bounded_wait(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_writer, "_END_SECONDS", 0.2)
    store.held = "step-00000002"
    _, writer, lines = opened(tmp_path)
    writer.save(1, tensors(1), STATE, best_step=None)
    wait_for(lambda: (tmp_path / "far/run/checkpoints/step-00000001/manifest.json").is_file())
    wait_for(lambda: (thread := writer._mirror_thread) is not None and thread.read_step() is None)
    writer.save(2, tensors(2), STATE, best_step=None)
    writer.close()
    far = tmp_path / "far"
    assert lines == [
        f"mirror {far}: waiting at most 0 s for the copy of step 2",
        f"mirror {far} lacks the checkpoint of step 2; the newest one that this start copied: "
        "step 1. The run's folder has all of them",
    ]
    assert writer.mirror_lacks == lines[-1]


def test_a_store_without_an_answer_is_given_up_and_a_later_one_is_taken(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_ANSWER_SECONDS", 0.1)
    _, writer, lines = opened(tmp_path)
    writer.save(1, tensors(1), STATE, best_step=None)
    wait_for(lambda: lines)
    assert "step 1 was not copied (no answer within 0 s); training goes on" in lines[0]
    monkeypatch.setattr(mirror, "_ANSWER_SECONDS", 60.0)
    store.open.set()
    writer.save(2, tensors(2), STATE, best_step=None)
    writer.close()
    assert "the checkpoint of step 2 is copied" in lines[-1]
    assert writer.mirror_lacks is None
    # What the request left behind that was given up has no manifest: it is no checkpoint.
    assert Mirror((tmp_path / "far").as_uri(), "run").steps() == [2]


def test_a_store_that_hangs_at_the_start_is_an_error_in_bounded_time(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_ANSWER_SECONDS", 0.1)
    store.held = "probe"
    with pytest.raises(OSError, match=r"mirror file://.*far: no answer within 0 s"):
        Mirror((tmp_path / "far").as_uri(), "run")


def test_a_store_that_hangs_does_not_hide_the_folders_own_checkpoint(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, writer, _ = opened(tmp_path)
    writer.save(3, tensors(3), STATE, best_step=None)
    writer.flush()
    monkeypatch.setattr(mirror, "_ANSWER_SECONDS", 0.1)
    newest = find_newest(run, Mirror((tmp_path / "far").as_uri(), "run"))
    assert newest is not None and newest.step == 3


def test_who_lost_the_mirror_stops_at_the_next_save_or_at_the_end(
    tmp_path: Path, store: Store
) -> None:
    store.open.set()
    for save_again in (True, False):
        _, writer, lines = opened(tmp_path)
        Mirror((tmp_path / "far").as_uri(), "run").claim(RunFolder(tmp_path / "run"))
        writer.save(1, tensors(1), STATE, best_step=None)
        wait_for(lambda lines=lines: lines)
        with pytest.raises(FencedError, match="another process continues this run"):
            if save_again:
                writer.save(2, tensors(2), STATE, best_step=None)
                writer.flush()
            else:
                writer.close()


@pytest.mark.slow
def test_a_training_ends_well_beside_a_store_that_hangs(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_writer, "_END_SECONDS", 0.1)
    monkeypatch.setattr("spikeseg.platform.train.worker._draw", lambda *_: None)
    far, store.held = (tmp_path / "far").as_uri(), "step-"
    config = experiment(
        pack_shapes(tmp_path / "data"),
        decoder="fpn",
        max_steps=3,
        micro_batches=1,
        evaluate_every=1,
        workers=0,
        mirror=far,
    )
    lines: list[str] = []
    outcome = train(
        Resolved(config, {}), storage=tmp_path / "runs", name="run", progress=lines.append
    )
    assert outcome.mirror_lacks is not None and outcome.mirror_lacks in lines
    assert "lacks the checkpoint of step 3" in outcome.mirror_lacks
    result = json.loads((tmp_path / "runs" / "run" / "result.json").read_text())
    assert result["mirror_lacks"] == outcome.mirror_lacks
