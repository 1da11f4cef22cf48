"""Killed anywhere, a training ends with the bytes that it would have ended with undisturbed."""

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash import Group, Kill
from tiny import ROWS, experiment, pack_shapes

from spikeseg.platform.train.row_ledger import path_to_weights

STEPS = 5
MICRO_BATCHES = 3
WORKERS = (1, 2, 3)
# What the drawn kill points of each number of workers are: 21 in all.
KINDS = ("evaluation", "checkpoint", "checkpoint", "checkpoint", "step", "step", "step")
SEED = int(os.environ.get("SPIKESEG_CRASH_SEED", time.time_ns() % 1_000_000))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    started = Group()
    yield started
    started.close()


def config(data: Path, decoder: str) -> str:
    return experiment(
        data,
        decoder=decoder,
        max_steps=STEPS,
        micro_batches=MICRO_BATCHES,
        evaluate_every=2,
        keep_checkpoints=1,
        ledger=True,
        ema_start="ramp",
    ).model_dump_json()


def final_files(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS:08d}"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check_ledger(run: Path) -> None:
    """The path to the weights has each row exactly once in every epoch."""
    entries = path_to_weights(run, STEPS)
    assert [(e.step, e.micro_batch) for e in entries] == [
        (step, index) for step in range(STEPS) for index in range(MICRO_BATCHES)
    ]
    rows = [row for entry in entries for row in entry.ids]
    assert len(rows) == STEPS * MICRO_BATCHES > ROWS
    for start in range(0, len(rows), ROWS):
        epoch = Counter(rows[start : start + ROWS])
        assert max(epoch.values()) == 1, epoch
    assert len(set(rows)) == ROWS


@pytest.mark.parametrize(
    "step", [pytest.param(n, marks=[] if n == 3 else [pytest.mark.slow]) for n in (2, 3, 4)]
)
def test_a_training_killed_around_the_border_of_a_phase_ends_with_the_same_bytes(
    group: Group, data: Path, tmp_path: Path, step: int
) -> None:
    tree = json.loads(config(data, "fpn"))
    tree["data"]["phases"] = [{"until": 3, "transform": {"crop": [16, 32]}}]
    tree["optimizer"]["decay_over"] = "cost"
    tree["trainer"] |= {"checkpoint_every": 1, "keep_checkpoints": STEPS}
    text = json.dumps(tree)
    whole, run, later = (tmp_path / name for name in ("undisturbed", "run", "later"))
    assert group.attempt(whole, text, 0)[0] == [0]
    kill = Kill(rank=0, event="forward", number=step, whole=True)
    assert group.attempt(run, text, 0, kill)[0] == [-9]
    assert group.attempt(run, text, 0)[0] == [0]
    assert final_files(run) == final_files(whole)
    # A kill may come before its step's checkpoint is written: here that is the newest for sure.
    shutil.copytree(whole, later)
    for checkpoint in (later / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    assert group.attempt(later, text, 0)[0] == [0]
    assert final_files(later) == final_files(whole)
    log = Path(f"{later}-0.log").read_text()
    assert f"resumed at step {step}" in log
    assert ("phase 2 of 2 begins, crops of 32 x 32" in log) is (step <= 3)


def kind(event: str) -> str:
    first = event.partition(" ")[0]
    return first if first in ("evaluation", "checkpoint") else "step"


def draw(events: list[dict[str, int]], wanted: str, generator: random.Random, place: int) -> Kill:
    """A kill point of one kind, every event of every rank being equally likely."""
    points = [
        (rank, event, number)
        for rank, counts in enumerate(events)
        for event, count in counts.items()
        for number in range(count)
        if kind(event) == wanted
    ]
    return Kill(*generator.choice(points), whole=place % 2 == 0)


# Three is where the order of sums first matters; one and two are left to `make test-all`.
@pytest.mark.parametrize(
    "workers",
    [pytest.param(n, marks=[] if n == 3 else [pytest.mark.slow]) for n in WORKERS],
)
def test_a_training_killed_anywhere_ends_with_the_same_bytes(
    group: Group, data: Path, tmp_path: Path, workers: int
) -> None:
    generator = random.Random(SEED * 10 + workers)
    # The published head where summation order matters most; the quick one elsewhere.
    text = config(data, "query" if workers == 3 else "fpn")
    codes, events = group.attempt(tmp_path / "undisturbed", text, workers)
    assert codes == [0] * workers
    expected = final_files(tmp_path / "undisturbed")
    check_ledger(tmp_path / "undisturbed")
    assert {"model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"} <= set(
        expected
    )
    print(f"seed {SEED}")
    for place, wanted in enumerate(KINDS):
        kill = draw(events, wanted, generator, place)
        what = f"seed {SEED}, {workers} workers, {kill}"
        run = tmp_path / f"run-{place}"
        codes, _ = group.attempt(run, text, workers, kill)
        assert codes[kill.rank] == -9, what
        assert all(codes), what
        left = sorted(p.name for p in (run / "checkpoints").iterdir())
        codes, _ = group.attempt(run, text, workers)
        assert codes == [0] * workers, what
        found = final_files(run)
        print(
            f"| {workers} | {'driver' if kill.whole else f'rank {kill.rank}'} | "
            f"{kill.event} {kill.number} | {', '.join(left) or 'none'} | "
            f"{'equal' if found == expected else 'DIFFERENT'} |"
        )
        assert found == expected, what
        check_ledger(run)
