"""Whatever happens to storage or to the writer, the newest good checkpoint is found, or none is."""

import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeseg.platform.checkpoint import checkpoint as module
from spikeseg.platform.checkpoint.background_writer import CheckpointWriter
from spikeseg.platform.checkpoint.checkpoint import Evaluation, read_checkpoint
from spikeseg.platform.checkpoint.run_folder import FencedError, NoGoodCheckpointError, RunFolder

STATE: dict[str, Any] = {"history": []}


def tensors(step: int) -> dict[str, dict[str, torch.Tensor]]:
    values = torch.full((64,), float(step))
    return {"model": {"weight": values}, "optimizer": {"weight/exp_avg": values}}


def run_with(path: Path, *steps: int) -> RunFolder:
    run = RunFolder(path)
    run.claim()
    for step in steps:
        run.save(step, tensors(step), STATE)
    return run


def in_a_child(work: Callable[[], None]) -> int:
    """Exit code of a forked process that does the work; -9 where it was killed."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def kill_at(number: int, *, torn: bool) -> None:
    """Make this process die at its n-th call that changes storage, a write half done if `torn`."""
    calls = {"count": 0}

    def reached() -> bool:
        calls["count"] += 1
        return calls["count"] > number

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if reached():
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **named)

        return call

    write = module.write_synced

    def tearing(path: Path, data: bytes) -> dict[str, Any]:
        if torn and reached():
            path.write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, data)

    module.write_synced = tearing
    os.fsync = killing(os.fsync)
    shutil.rmtree = killing(shutil.rmtree)
    for name in ("mkdir", "rename", "open", "unlink"):
        setattr(Path, name, killing(getattr(Path, name)))


@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "in a write"])
def test_a_crash_at_every_call_of_a_save_leaves_a_good_checkpoint(
    tmp_path: Path, torn: bool
) -> None:
    found = []
    for number in range(200):
        path = tmp_path / f"run-{number}"
        # Step 10 is there already: writing it anew is the case with the most calls.
        run = run_with(path, 5, 10)

        def work(run: RunFolder = run, number: int = number) -> None:
            kill_at(number, torn=torn)
            writer = CheckpointWriter(run, newest=1, every=None)
            writer.save(10, tensors(10), STATE, best_step=None)
            writer.flush()

        code = in_a_child(work)
        again = RunFolder(path)
        again.claim()
        newest = again.newest()
        assert newest is not None and newest.step in (5, 10)
        assert torch.equal(
            newest.tensors("model")["weight"], tensors(newest.step)["model"]["weight"]
        )
        assert not list((path / "checkpoints").glob(".*"))
        assert not (path / "quarantine").exists()
        again.save(15, tensors(15), STATE)
        after = again.newest()
        assert after is not None and after.step == 15
        if code == 0:
            break
        assert code == -9
        found.append(newest.step)
    else:
        pytest.fail("the save never came to its end")
    assert len(found) >= (20 if torn else 15), found


def damage(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[len(data) * 3 // 4] ^= 0x10
        file.write_bytes(bytes(data))
    elif how == "truncate":
        file.write_bytes(bytes(data[:-1]))
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "grow":
        file.write_bytes(bytes(data) + b"\0")
    else:
        file.unlink()


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "grow", "delete"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
def test_every_damage_to_every_file_is_found_and_told(
    tmp_path: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_with(tmp_path / "run", 5, 10)
    damage(run.path / "checkpoints" / "step-00000010" / name, how)
    if (name, how) == ("manifest.json", "truncate"):
        damage(run.path / "checkpoints" / "step-00000010" / name, how)
    newest = run.newest()
    assert newest is not None and newest.step == 5
    assert len(run.damaged) == 1 and "step-00000010" in run.damaged[0]
    assert "checkpoint left out" in caplog.text
    (kept,) = (run.path / "quarantine").iterdir()
    assert kept.name.startswith("step-00000010")


def test_a_stale_manifest_does_not_pass(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 5, 10)
    folders = run.path / "checkpoints"
    shutil.copy(folders / "step-00000005" / "manifest.json", folders / "step-00000010")
    newest = run.newest()
    assert newest is not None and newest.step == 5
    assert "its manifest is of step 5" in run.damaged[0]


def test_a_copy_under_another_steps_name_does_not_pass(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 5)
    folders = run.path / "checkpoints"
    shutil.copytree(folders / "step-00000005", folders / "step-00000099")
    newest = run.newest()
    assert newest is not None and newest.step == 5


def test_without_any_good_one_neither_the_first_nor_the_second_start_begins_anew(
    tmp_path: Path,
) -> None:
    run = run_with(tmp_path / "run", 5, 10)
    for step in (5, 10):
        damage(run.path / "checkpoints" / f"step-{step:08d}" / "model.safetensors", "flip")
    for _ in range(2):
        with pytest.raises(NoGoodCheckpointError, match="none of its 2 checkpoints is good"):
            RunFolder(run.path).newest()


def test_a_full_disk_leaves_the_earlier_checkpoint_and_an_error(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 5)

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        writer = CheckpointWriter(run, newest=1, every=None)
        writer.save(10, tensors(10), STATE, best_step=None)
        try:
            writer.flush()
        except OSError as error:
            os._exit(0 if "File too large" in str(error) else 3)
        os._exit(4)

    assert in_a_child(work) == 0
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000005"]
    newest = run.newest()
    assert newest is not None and newest.step == 5


def test_two_writers_leave_only_good_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run_with(path, 1)

    def work() -> None:
        run = RunFolder(path)
        run.claim()
        for step in range(2, 30):
            try:
                run.save(step, tensors(step), STATE)
            except FencedError:
                os._exit(7)

    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=work) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    codes = sorted(writer.exitcode or 0 for writer in writers)
    # The one that claimed last came to its end; the others were told, or were done before.
    assert 0 in codes and set(codes) <= {0, 7}
    for folder in (path / "checkpoints").glob("step-*"):
        step = read_checkpoint(folder).step
        assert torch.equal(
            read_checkpoint(folder).tensors("model")["weight"], torch.full((64,), float(step))
        )


def test_the_copy_does_not_see_what_training_does_next(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run")
    writer = CheckpointWriter(run, newest=3, every=None)
    live = tensors(1)
    for step in (1, 2, 3):
        live["model"]["weight"].fill_(float(step))
        writer.save(step, live, STATE, best_step=None)
    live["model"]["weight"].fill_(99.0)
    writer.flush()
    for step in (1, 2, 3):
        assert float(run.at(step).tensors("model")["weight"][0]) == step


def test_an_error_of_the_writing_thread_comes_out_at_the_next_save(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run")
    writer = CheckpointWriter(run, newest=3, every=None)
    RunFolder(run.path).claim()
    writer.save(1, tensors(1), STATE, best_step=None)
    with pytest.raises(FencedError, match="attempt 1 was replaced by attempt 2"):
        writer.save(2, tensors(2), STATE, best_step=None)


def test_every_nth_checkpoint_is_kept_besides_newest_and_best(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", *range(1, 11))
    run.retain(2, {3, None}, every=4)
    steps = sorted(read_checkpoint(p).step for p in (run.path / "checkpoints").iterdir())
    assert steps == [3, 4, 8, 9, 10]


def test_a_damaged_best_checkpoint_leaves_the_next_best(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 5, 10)
    history = [Evaluation(5, {"val/mIoU": 30.0}), Evaluation(10, {"val/mIoU": 20.0})]
    assert run.best(history)[0].step == 5
    damage(run.path / "checkpoints" / "step-00000005" / "model.safetensors", "flip")
    assert run.best(history)[0].step == 10
    damage(run.path / "checkpoints" / "step-00000010" / "model.safetensors", "flip")
    with pytest.raises(ValueError, match="no evaluation's checkpoint is good"):
        run.best(history)
