"""A checkpoint is whole or absent, the newest good one is found, and old owners cannot write."""

from pathlib import Path

import pytest
import torch

from spikeseg.platform.checkpoint import run_folder
from spikeseg.platform.checkpoint.checkpoint import read_checkpoint
from spikeseg.platform.checkpoint.run_folder import FencedError, NoGoodCheckpointError, RunFolder

TENSORS = {"model": {"weight": torch.arange(6.0).view(2, 3)}, "optimizer": {}}


def saved(path: Path, *steps: int) -> RunFolder:
    run = RunFolder(path)
    run.claim()
    for step in steps:
        run.save(step, TENSORS, {"history": []})
    return run


def test_newest_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 5, 10)
    newest = run.newest()
    assert newest is not None
    assert newest.step == 10
    assert torch.equal(newest.tensors("model")["weight"], TENSORS["model"]["weight"])
    assert newest.tensors("ema") == {}


def test_a_run_without_checkpoints_starts_from_nothing(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "run").newest() is None


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_quarantined_and_the_older_one_taken(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = saved(tmp_path / "run", 5, 10)
    file = run.path / "checkpoints" / "step-00000010" / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    elif damage == "truncate":
        file.write_bytes(bytes(data[: len(data) // 2]))
    else:
        file.unlink()
    newest = run.newest()
    if name == "manifest.json" and damage == "flip" and newest and newest.step == 10:
        # A flipped blank in the manifest changes nothing that is read from it.
        return
    assert newest is not None
    assert newest.step == 5
    assert len(list((run.path / "quarantine").iterdir())) == 1
    assert "checkpoint left out" in caplog.text


def test_no_good_checkpoint_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 5)
    (run.path / "checkpoints" / "step-00000005" / "model.safetensors").write_bytes(b"")
    with pytest.raises(NoGoodCheckpointError, match="none of its 1 checkpoints is good"):
        run.newest()


def test_a_checkpoint_that_was_to_be_replaced_comes_back_whole_or_not_at_all(
    tmp_path: Path,
) -> None:
    run = saved(tmp_path / "run", 5)
    folder = run.path / "checkpoints" / "step-00000005"
    leaving = folder.with_name(f".{run_folder._LEAVING}-{folder.name}-1")
    folder.rename(leaving)
    run.claim()
    newest = run.newest()
    assert newest is not None and newest.step == 5
    folder.rename(leaving)
    (leaving / "model.safetensors").unlink()
    run.claim()
    assert not list((run.path / "checkpoints").iterdir())


def test_files_that_somebody_left_there_are_passed_over(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 5)
    (run.path / "attempts" / "notes.txt").write_text("mine")
    (run.path / "checkpoints" / "step-00000005.bak").mkdir()
    assert run.claim() == 2
    run.retain(1, ())
    newest = run.newest()
    assert newest is not None and newest.step == 5
    assert (run.path / "checkpoints" / "step-00000005.bak").is_dir()


def test_a_run_without_an_evaluation_names_its_checkpoint(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 5)
    with pytest.raises(ValueError, match=r"no evaluation yet; .*step-00000005"):
        run_folder.find_checkpoint(run.path)


def test_a_replaced_owner_cannot_write(tmp_path: Path) -> None:
    old = saved(tmp_path / "run", 5)
    new = RunFolder(tmp_path / "run")
    assert new.claim() == 2
    with pytest.raises(FencedError, match="attempt 1 was replaced by attempt 2"):
        old.save(10, TENSORS, {"history": []})
    assert [entry.name for entry in (old.path / "checkpoints").iterdir()] == ["step-00000005"]


def test_a_failed_write_leaves_the_earlier_checkpoint_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(tmp_path / "run", 5)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.save(10, TENSORS, {"history": []})
    monkeypatch.undo()
    assert [entry.name for entry in (run.path / "checkpoints").iterdir()] == ["step-00000005"]


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 1, 2, 3, 4, 5)
    run.retain(2, {2})
    steps = sorted(read_checkpoint(p).step for p in (run.path / "checkpoints").iterdir())
    assert steps == [2, 4, 5]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match="file/run: the run's folder cannot be written"):
        RunFolder(tmp_path / "file" / "run")
