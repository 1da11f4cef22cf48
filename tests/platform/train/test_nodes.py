"""Several nodes on one machine: one is lost, and training goes on with fewer or waits for it."""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nodes import Nodes
from tiny import experiment, pack_shapes

from spikeseg.platform.config.recipes import Resolved
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.train.row_ledger import path_to_weights
from spikeseg.platform.train.trainer import TrainOutcome, train

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEED = int(os.environ.get("SPIKESEG_CRASH_SEED", time.time_ns() % 1_000_000))
SECONDS = 600


@pytest.fixture
def generator() -> random.Random:
    print(f"seed {SEED}")
    return random.Random(SEED)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def config(data: Path, min_workers: int | None) -> ExperimentConfig:
    return experiment(
        data,
        decoder="fpn",
        max_steps=60,
        workers=2,
        min_workers=min_workers,
        micro_batches=2,
        evaluate_every=30,
        checkpoint_every=2,
        reduction="strict",
        ledger=True,
    )


class Run:
    """A training in a thread, since nodes may only be added from the main one."""

    def __init__(self, given: ExperimentConfig, storage: Path) -> None:
        self.folder = storage / "run"
        self.lines: list[str] = []
        self.outcome: TrainOutcome | None = None
        self.error: BaseException | None = None

        def work() -> None:
            try:
                self.outcome = train(
                    Resolved(given, {}), storage=storage, name="run", progress=self.lines.append
                )
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def checkpoints(self) -> int:
        """Step of the newest checkpoint."""
        found = sorted((self.folder / "checkpoints").glob("step-*"))
        return int(found[-1].name.partition("-")[2]) if found else 0

    def wait(self, what: str, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not reached():
            assert time.monotonic() < end, f"waited for {what}: {self.lines}"
            assert self._thread.is_alive() or reached(), (self.error, self.lines)
            time.sleep(0.1)

    def end(self) -> None:
        self._thread.join(SECONDS)
        assert self.error is None and self.outcome is not None, (self.error, self.lines)


def test_with_a_least_number_of_workers_training_goes_on_with_fewer(
    nodes: Nodes, data: Path, tmp_path: Path, generator: random.Random
) -> None:
    run = Run(config(data, min_workers=1), tmp_path)
    step = generator.randrange(2, 29)
    run.wait("a checkpoint", lambda: run.checkpoints() >= step)
    nodes.lose(generator)
    lost = time.monotonic()
    run.wait("one worker", lambda: any("workers 1, before 2" in line for line in run.lines))
    print(f"| (1, 2) | node lost | went on with 1 worker after {time.monotonic() - lost:.0f} s |")
    run.end()
    assert len(path_to_weights(run.folder, 60)) == 120


def test_with_a_fixed_number_training_says_what_it_waits_for_and_goes_on(
    nodes: Nodes, data: Path, tmp_path: Path, generator: random.Random
) -> None:
    run = Run(config(data, min_workers=None), tmp_path)
    step = generator.randrange(2, 29)
    run.wait("a checkpoint", lambda: run.checkpoints() >= step)
    nodes.lose(generator)
    run.wait(
        "the message",
        lambda: any("waiting: the work needs 2 CPUs, the cluster has 1" in x for x in run.lines),
    )
    stood = run.checkpoints()
    nodes.workers.append(nodes.add())
    joined = time.monotonic()
    run.wait("new steps", lambda: run.checkpoints() > stood + 2)
    print(f"| 2 | node lost and joined | went on after {time.monotonic() - joined:.0f} s |")
    run.end()
    assert any("the cluster has 2 CPUs again" in line for line in run.lines)


def test_storage_that_a_node_does_not_see_is_refused_at_the_start(
    nodes: Nodes, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del nodes
    monkeypatch.chdir(tmp_path)
    # Every process has its own folder there, as nodes without a shared file system have.
    storage = Path("/proc/self/cwd/runs")
    with pytest.raises(
        ValueError, match=r"storage /proc/self/cwd/runs: node \S+ \(\w+\) does not see it"
    ):
        train(Resolved(config(data, None), {}), storage=storage, name="run")
    assert not list((tmp_path / "runs").glob(".probe-*"))


def test_a_tracking_database_in_a_file_is_refused_at_the_start(
    nodes: Nodes, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del nodes
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ValueError, match=r"tracking sqlite:///.*: not an HTTP address.* 2 nodes"):
        train(Resolved(config(data, None), {}), storage=tmp_path, name="run")
    assert not (tmp_path / "run").exists()
