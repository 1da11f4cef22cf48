"""The number of workers changes neither the rows nor, under `strict`, a single byte."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from crash import Group, Kill
from safetensors.torch import load_file
from tiny import experiment, pack_shapes
from torch import Tensor

from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.train.row_ledger import path_to_weights

STEPS = 5
# Of loss and gradient, relative; what remains is the order of float sums.
ROUNDING = 1e-5


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


def test_flat_keeps_rows_and_the_first_step_within_rounding(
    group: Group, data: Path, alone: Path, tmp_path: Path
) -> None:
    assert group.attempt(tmp_path / "run", config(data), 3)[0] == [0, 0, 0]
    assert path_to_weights(tmp_path / "run", STEPS) == path_to_weights(alone, STEPS)
    # Later steps may leave: a weight that differs in its last bit takes a spike over a boundary.
    for name, workers in (("one", 0), ("three", 3)):
        text = config(data, max_steps=1, reduction="flat" if workers else "strict")
        assert set(group.attempt(tmp_path / name, text, workers)[0]) == {0}
    found, expected = (first_step(tmp_path / name) for name in ("three", "one"))
    assert found[0] == pytest.approx(expected[0], rel=ROUNDING)
    largest = float(expected[1].abs().max())
    assert largest > 0
    assert float((found[1] - expected[1]).abs().max()) < ROUNDING * largest


def first_step(run: Path) -> tuple[float, Tensor]:
    """Loss and gradient of a training of one step; Adam's first moment is a tenth of the latter."""
    folder = run / "checkpoints" / "step-00000001"
    (evaluation,) = json.loads((folder / "state.json").read_text())["history"]
    moments = load_file(folder / "optimizer.safetensors").items()
    gradient = torch.cat([value.flatten() for key, value in moments if key.endswith("exp_avg")])
    return evaluation["metrics"]["train/loss"], gradient


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
