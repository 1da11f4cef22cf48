"""`spikeseg benchmark tracking`: step time with and without tracking, in turns."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from ...platform.checkpoint.run_folder import RunFolder
from ...platform.cluster.worker_group import OneWorker
from ...platform.config.recipes import Resolved
from ...platform.evaluation.recording import Recorder
from ...platform.tracking.journal import Journal
from ...platform.tracking.system_metrics import SystemMonitor
from ...platform.tracking.tracking_uri import tracking_uri
from ...platform.tracking.upload.upload_offset import unsent
from ...platform.tracking.upload.upload_thread import Sender
from ...platform.train.loop import Training
from ...platform.train.tracked_training import make_journal
from ..cli import run


@click.command("tracking")
@click.option("--steps", default=20, show_default=True, help="Steps of one turn, at least 3.")
@click.option("--pairs", default=8, show_default=True, help="Turns of each kind.")
def command(steps: int, pairs: int) -> None:
    """Train shapes_tiny twice in turns on generated data, one copy tracked in full."""
    from ...datasets.layouts.shapes import Shapes, ShapesOptions
    from ...datasets.packed.pack import pack
    from ...platform.config.recipes import load_experiment

    if steps < 3:
        raise click.UsageError("--steps must be at least 3")
    with tempfile.TemporaryDirectory(prefix="spikeseg-benchmark-") as folder:
        storage = Path(folder)
        generated = Shapes(ShapesOptions(train=64, val=8, test=1, seed=1))
        pack("shapes", generated, Path(), storage / "shapes", progress=lambda done, total: None)
        items = [
            f"data.path={storage / 'shapes'}",
            "trainer.workers=0",
            "trainer.log_every=1",
            f"trainer.evaluate_every={steps}",
            f"trainer.max_steps={steps * pairs}",
            "optimizer.warmup_steps=0",
            "tracking.images=4",
        ]
        cost = measure_tracking(load_experiment("shapes_tiny", items), storage)
    print(f"{cost.steps} steps of each kind, every step recorded, sqlite, turns of {steps} steps")
    print("median step time, ms      plain   tracked    ratio")
    for plain, tracked in cost.pairs:
        print(f"{'':20}{plain:11.2f}{tracked:10.2f}{tracked / plain:9.3f}")
    ratios = cost.ratios()
    print(
        f"median of ratios {statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"
    )
    print(f"training thread in the journal: {1000 * cost.thread_ms:.0f} us of CPU a step,")
    print(f"  {cost.evaluation_ms:.2f} ms of CPU an evaluation (drawing its pictures not counted)")
    plain, tracked = cost.process_ms
    print(f"whole process, sender included: {plain:.2f} -> {tracked:.2f} ms of CPU a step")


@dataclass(frozen=True)
class TrackingCost:
    """Times of one measurement, in milliseconds.

    Attributes:
        pairs: Per chunk of steps the median step time without and with tracking.
        thread_ms: CPU time of the training thread spent in the journal, per step.
        evaluation_ms: CPU time of the training thread to record one evaluation, the drawing of
            its pictures left out.
        process_ms: CPU time of the whole process per step, without and with tracking.
        steps: Steps of each kind.
    """

    pairs: list[tuple[float, float]]
    thread_ms: float
    evaluation_ms: float
    process_ms: tuple[float, float]
    steps: int

    def ratios(self) -> list[float]:
        """Step time with tracking over that without, per pair."""
        return [tracked / plain for plain, tracked in self.pairs]


@dataclass
class _Clock:
    """Notes when each step was recorded and what recording took; passes on to a journal."""

    journal: Journal | None
    step_times: list[float] = field(default_factory=list)
    step_cpu: float = 0.0
    evaluation_cpu: float = 0.0
    evaluations: int = 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        started = time.thread_time()
        if self.journal is not None:
            self.journal.metrics(step, values)
        spent = time.thread_time() - started
        if "train/loss" in values:
            self.step_times.append(time.perf_counter())
            self.step_cpu += spent
        else:
            self.evaluation_cpu += spent
            self.evaluations += 1

    def image(self, name: str, step: int, png: bytes) -> None:
        started = time.thread_time()
        if self.journal is not None:
            self.journal.image(name, step, png)
        self.evaluation_cpu += time.thread_time() - started

    def picture(self, path: str, png: bytes) -> None:
        started = time.thread_time()
        if self.journal is not None:
            self.journal.picture(path, png)
        self.evaluation_cpu += time.thread_time() - started

    def text(self, path: str, content: str) -> None:
        started = time.thread_time()
        if self.journal is not None:
            self.journal.text(path, content)
        self.evaluation_cpu += time.thread_time() - started

    def sync(self) -> None:
        started = time.thread_time()
        if self.journal is not None:
            self.journal.sync()
        self.evaluation_cpu += time.thread_time() - started

    def take(self) -> float:
        """Median step time of the chunk since the last call, in milliseconds."""
        times = self.step_times
        chunk = [1e3 * (b - a) for a, b in itertools.pairwise(times)]
        self.step_times = []
        return statistics.median(chunk)


def measure_tracking(resolved: Resolved, storage: Path) -> TrackingCost:
    """Train two copies in turns, one of them tracked in full, every step recorded.

    Args:
        resolved: The experiment; `trainer.evaluate_every` is the length of one turn, at least 3,
            `trainer.max_steps` over it the number of pairs.
        storage: Folder for both runs and the database.
    """
    config = resolved.config
    runs = [RunFolder(storage / name) for name in ("plain", "tracked")]
    for folder in runs:
        folder.claim()
    journal = make_journal(resolved, runs[1], 1, {})
    uri = tracking_uri(storage)
    sender = Sender(journal.folder, uri, config.tracking.experiment, runs[1].path)
    monitor = SystemMonitor(journal, config.tracking.system_interval)
    clocks = [_Clock(None), _Clock(journal)]
    turns = [
        _training(resolved, run, clock).evaluations()
        for run, clock in zip(runs, clocks, strict=True)
    ]
    sender.start()
    monitor.start()
    pairs: list[tuple[float, float]] = []
    cpu = [0.0, 0.0]
    try:
        for pair in range(config.trainer.max_steps // config.trainer.evaluate_every):
            medians = {}
            # Which of the two goes first alternates, so that a drift of the machine cancels.
            for which in ((0, 1), (1, 0))[pair % 2]:
                if which == 0:
                    _wait_for(journal)
                started = time.process_time()
                next(turns[which])
                cpu[which] += time.process_time() - started
                medians[which] = clocks[which].take()
            pairs.append((medians[0], medians[1]))
    finally:
        monitor.stop()
        sender.stop(timeout=60)
        journal.close()
    steps = len(pairs) * config.trainer.evaluate_every
    clock = clocks[1]
    return TrackingCost(
        pairs=pairs,
        thread_ms=1e3 * clock.step_cpu / steps,
        evaluation_ms=1e3 * clock.evaluation_cpu / max(1, clock.evaluations),
        process_ms=(1e3 * cpu[0] / steps, 1e3 * cpu[1] / steps),
        steps=steps,
    )


def _training(resolved: Resolved, run: RunFolder, recorder: Recorder) -> Training:
    training = Training(resolved.config, run, group=OneWorker(), recorder=recorder, progress=None)
    training.start()
    return training


def _wait_for(journal: Journal) -> None:
    """The sender must not work off its rest in the other one's turn."""
    deadline = time.monotonic() + 30
    while unsent(journal.folder) and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    run(command)
