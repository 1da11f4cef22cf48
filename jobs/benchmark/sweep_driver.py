"""`spikeseg benchmark sweep --driver`: what a sweep's own process costs a trial, as trials grow."""

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.samplers import RandomSampler, TPESampler

from ...platform.search.study.study import Keeper
from ...platform.search.study.trial_records import TrialReport
from ...platform.search.sweep import SweepOptions, sweep
from ...platform.search.sweep_file.plan import SweepPlan, load_sweep
from ...platform.search.sweep_status import SweepStatus, Watcher
from ...platform.search.sweep_tracking import SweepRecord
from ...platform.search.trials.trial_training import WorkOrder
from ...platform.tracking.journal import Journal
from ...platform.tracking.metric_table import evaluation_metrics

MARKS = (100, 300, 1000, 3000, 5000)
"""Numbers of trials at which the cost of one more is measured."""
SAMPLERS = ("random", "tpe")
_WINDOW = 50
_TRIAL, _SAMPLER, _REST, _UPLOAD = "trial", "sampler", "rest", "upload"
STAGES = (_SAMPLER, "begin", "configure", "judge", "status", "journal", _REST, _UPLOAD)
"""Columns of the table; all but the first are the driver's own."""
# Where a driver's time goes, by public call; what runs between them is the rest.
_CALLS: tuple[tuple[str, type, tuple[str, ...]], ...] = (
    *(
        (
            _SAMPLER,
            sampler,
            (
                "before_trial",
                "infer_relative_search_space",
                "sample_relative",
                "sample_independent",
                "after_trial",
            ),
        )
        for sampler in (RandomSampler, TPESampler)
    ),
    ("begin", Keeper, ("next",)),
    ("judge", Keeper, ("report", "lost")),
    ("configure", SweepPlan, ("experiment",)),
    ("status", Watcher, ("status", "line")),
    ("journal", SweepRecord, ("record_end", "follow")),
)


@dataclass(frozen=True)
class DriverCost:
    """CPU time of a driver at one number of trials.

    Attributes:
        trials: Trials of the study when it was measured.
        stages: Stage -> CPU seconds a trial, a mean over the last trials before.
    """

    trials: int
    stages: dict[str, float]

    @property
    def own(self) -> float:
        """CPU seconds a trial beside the sampler's proposal and the upload to MLflow."""
        return sum(v for name, v in self.stages.items() if name not in (_SAMPLER, _UPLOAD))


@dataclass
class StageClock:
    """CPU seconds of the main thread by stage; a stage within another counts for itself alone.

    Attributes:
        seconds: Stage -> CPU seconds so far.
    """

    seconds: Counter[str] = field(default_factory=Counter)
    _open: list[str] = field(default_factory=lambda: [_REST])
    _since: float = field(default_factory=lambda: time.thread_time())

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time for a stage."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def read(self) -> Counter[str]:
        """Seconds so far, and those of all other threads, as the upload's."""
        self._turn()
        other = time.process_time() - time.thread_time()
        return self.seconds + Counter({_UPLOAD: other})

    def _turn(self) -> None:
        now = time.thread_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


def measure_driver(
    recipe: str, overrides: Sequence[str], *, storage: Path, trials: int
) -> Iterator[tuple[str, list[DriverCost], float]]:
    """Run sweeps of trials with made-up scores in this process; no network is trained.

    Everything else is real: samplers, pruner, study on disk, journals and their upload, status,
    results and figures.

    Args:
        recipe: The sweep whose space, objectives, pruner and constraints are used.
        overrides: Items `field=value` for the base experiment, `sweep.field=value` for the recipe;
            with `sweep.sampler.name` that sampler alone is measured.
        storage: Folder that takes the sweeps.
        trials: Trials of each sweep; the cost is measured at each of `MARKS` up to it.

    Yields:
        Sampler, its costs by number of trials, and CPU seconds of the sweep's end in all.

    Raises:
        ConfigError: As `load_sweep`.
    """
    chosen = any(item.startswith("sweep.sampler.name=") for item in overrides)
    for name in (None,) if chosen else SAMPLERS:
        items = [*overrides, *(() if name is None else (f"sweep.sampler.name={name}",))]
        plan = load_sweep(recipe, items)
        clock = StageClock()
        readings: dict[int, Counter[str]] = {}
        with _timed_calls(clock):
            sweep(
                recipe,
                items,
                SweepOptions(
                    storage=storage / f"driver-{plan.recipe.sampler.name}-{time.time_ns()}",
                    trials=trials,
                    here=True,
                ),
                progress=_ignore_line,
                show=_ignore_status,
                work=_made_up_trials(plan, clock, readings),
            )
        end = clock.read() - readings[max(readings)]
        yield plan.recipe.sampler.name, _costs(readings), sum(end.values())


def cost_lines(sampler: str, costs: Sequence[DriverCost], end: float) -> list[str]:
    """A table of costs as lines of text.

    Args:
        sampler: The sampler's name.
        costs: By number of trials.
        end: CPU seconds of the sweep's end in all.
    """
    lines = [f"sampler {sampler}: CPU seconds a trial", f"{'trials':>7}"]
    lines[-1] += "".join(f"{name:>11}" for name in (*STAGES, "driver"))
    for cost in costs:
        cells = [*(cost.stages.get(name, 0.0) for name in STAGES), cost.own]
        lines.append(f"{cost.trials:7d}" + "".join(f"{value:11.4f}" for value in cells))
    return [
        *lines,
        f"the sweep's end (results, figures, last upload): {end:.1f} CPU seconds in all",
    ]


def _made_up_trials(
    plan: SweepPlan, clock: StageClock, readings: dict[int, Counter[str]]
) -> Callable[[WorkOrder], Generator[TrialReport, None, None]]:
    """Trials that write a journal and report curves by formula, and read the clock when they end.

    Args:
        plan: The sweep.
        clock: Stops the time; what a trial itself takes is not the driver's.
        readings: Takes the clock's readings: ended trials -> seconds by stage.
    """
    trainer = plan.base.config.trainer
    steps = range(trainer.evaluate_every, trainer.max_steps + 1, trainer.evaluate_every)
    names = evaluation_metrics(plan.base.config.data.task)
    ended = 0

    def run_trial(order: WorkOrder) -> Generator[TrialReport, None, None]:
        nonlocal ended
        with clock.stage(_TRIAL):
            chance = random.Random(order["config"])
            quality, cost = chance.uniform(20, 60), chance.uniform(0.1, 2.0)
            journal = Journal(
                Path(order["folder"]) / "journal",
                run_name=order["tags"]["run_name"],
                tags=order["tags"],
                params={},
                parent=order["parent"],
            )
        try:
            for step in range(
                trainer.evaluate_every, trainer.max_steps + 1, trainer.evaluate_every
            ):
                with clock.stage(_TRIAL):
                    metrics = {name: chance.uniform(0.0, 0.01) for name in names}
                    metrics["val/mIoU"] = quality * step / (step + trainer.evaluate_every)
                    metrics["energy/mJ"] = cost
                    journal.metrics(step, metrics)
                yield TrialReport(step, metrics, final=step == steps[-1], seconds=1.0)
        finally:
            with clock.stage(_TRIAL):
                journal.close()
            ended += 1
            if any(ended in (mark, mark - _WINDOW) for mark in MARKS):
                readings[ended] = clock.read()

    return run_trial


def _costs(readings: dict[int, Counter[str]]) -> list[DriverCost]:
    costs = []
    for mark in MARKS:
        before = mark - _WINDOW
        if mark in readings and before in readings:
            spent = {
                name: (readings[mark][name] - readings[before][name]) / _WINDOW for name in STAGES
            }
            costs.append(DriverCost(mark, spent))
    return costs


@contextlib.contextmanager
def _timed_calls(clock: StageClock) -> Iterator[None]:
    """Time the calls in `_CALLS` while the block runs."""
    with contextlib.ExitStack() as undo:
        for stage, owner, names in _CALLS:
            for name in names:
                method = getattr(owner, name)
                undo.callback(setattr, owner, name, method)
                setattr(owner, name, _timed(method, clock, stage))
        yield


def _timed(method: Callable[..., Any], clock: StageClock, stage: str) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        with clock.stage(stage):
            return method(*arguments, **named)

    return timed


def _ignore_line(line: str) -> None:
    """Take a line of progress."""


def _ignore_status(status: SweepStatus) -> None:
    """Take a status."""
