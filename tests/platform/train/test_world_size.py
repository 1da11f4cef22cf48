"""The number of workers changes neither the rows nor, under `strict`, a single byte."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash import Group, Kill
from tiny import experiment, pack_shapes

from spikeseg.platform.train.checkpoint import RunFolder
from spikeseg.platform.train.ledger import path_to_weights

STEPS = 5
# Of the loss after five steps, relative; what remains is the order of float sums.
LOSS_BOUND = 1e-4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    started = Group()
    yield started
    started.close()


def config(data: Path, **trainer: Any) -> str:
    given = {"max_steps": STEPS, "micro_batches": 4, "evaluate_every": 2, "ledger": True}
    return experiment(data, decoder="fpn", **{**given, **trainer}).model_dump_json()


def tensors(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS:08d}"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def state(run: Path) -> dict[str, Any]:
    return json.loads((run / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text())


@pytest.fixture(scope="module")
def alone(group: Group, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strict training in one process, without a process group."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert group.attempt(run, config(data, reduction="strict"), 0)[0] == [0]
    return run


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_strict_is_byte_equal_and_reads_the_same_rows_for_any_number_of_workers(
    group: Group, data: Path, alone: Path, tmp_path: Path, workers: int
) -> None:
    codes, _ = group.attempt(tmp_path / "run", config(data, reduction="strict"), workers)
    assert codes == [0] * workers
    assert tensors(tmp_path / "run") == tensors(alone)
    assert state(tmp_path / "run")["history"] == state(alone)["history"]
    assert path_to_weights(tmp_path / "run", STEPS) == path_to_weights(alone, STEPS)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_strict_stays_byte_equal_when_the_number_of_workers_changes_at_a_resume(
    group: Group, data: Path, alone: Path, tmp_path: Path, before: int, after: int
) -> None:
    text = config(data, reduction="strict", checkpoint_every=1)
    codes, _ = group.attempt(tmp_path / "run", text, before, Kill(0, "reduce", 3, whole=True))
    # Others may meet the closed connection before they are killed too.
    assert -9 in codes and all(codes)
    assert group.attempt(tmp_path / "run", text, after)[0] == [0] * after
    assert tensors(tmp_path / "run") == tensors(alone)
    assert path_to_weights(tmp_path / "run", STEPS) == path_to_weights(alone, STEPS)
    log = tmp_path / "run-0.log"
    assert f"resumed with workers {after}, before {before}" in log.read_text()


def test_flat_keeps_rows_and_loss_curve_within_rounding(
    group: Group, data: Path, alone: Path, tmp_path: Path
) -> None:
    assert group.attempt(tmp_path / "run", config(data), 3)[0] == [0, 0, 0]
    assert path_to_weights(tmp_path / "run", STEPS) == path_to_weights(alone, STEPS)
    losses, expected = (
        [item["metrics"]["train/loss"] for item in state(run)["history"]]
        for run in (tmp_path / "run", alone)
    )
    assert losses == pytest.approx(expected, rel=LOSS_BOUND)


def test_workers_that_outlive_their_driver_cannot_write_into_a_resumed_run(
    group: Group, data: Path, tmp_path: Path
) -> None:
    text = config(data, checkpoint_every=1, max_steps=400)
    orphans: list[int] = []

    def run_group() -> None:
        orphans.extend(group.attempt(tmp_path / "run", text, 2)[0])

    thread = threading.Thread(target=run_group)
    thread.start()
    run = RunFolder(tmp_path / "run")
    end = time.monotonic() + 120
    while not list((run.path / "checkpoints").glob("step-*")):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert run.claim() == 2
    # A write that passed the check just before the claim may still be renamed: then it is whole.
    time.sleep(0.2)
    newest = run.newest()
    before = sorted(path.name for path in (run.path / "checkpoints").glob("step-*"))
    thread.join(120)
    assert newest is not None
    assert orphans[0] == 1 and all(orphans)
    assert sorted(path.name for path in (run.path / "checkpoints").glob("step-*")) == before
    assert "attempt 1 was replaced by attempt 2" in (tmp_path / "run-0.log").read_text()
