"""`spikeseg benchmark sweep --driver`: what a sweep's own process costs a trial, as trials grow."""

import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from ...platform.config.errors import ConfigError
from ...platform.search.study.stored_trials import EVALUATION
from ...platform.search.study.study import Keeper
from ...platform.search.study.study_storage import open_study
from ...platform.search.study.trial_records import TrialReport, Verdict
from ...platform.search.sweep import SweepOptions, sweep
from ...platform.search.sweep_file.plan import SweepPlan, load_sweep
from ...platform.search.sweep_status import SweepStatus, Watcher
from ...platform.search.sweep_tracking import SweepRecord
from ...platform.search.trials.trial_training import WorkOrder
from ...platform.tracking.journal import Journal, append_end
from ...platform.tracking.metric_table import evaluation_metrics

MARKS = (100, 300, 1000, 3000, 5000)
"""Numbers of trials at which the cost of one more is measured."""
SAMPLERS = ("random", "tpe")
_NAME = "driver"
_WINDOW = 50
_COMPLETE = 0.2
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

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
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

    def read(self) -> dict[str, float]:
        """Seconds so far, and those of all other threads, as the upload's."""
        self._turn()
        other = time.process_time() - time.thread_time()
        return {**self.seconds, _UPLOAD: other}

    def _turn(self) -> None:
        now = time.thread_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


def measure_driver(
    recipe: str, overrides: Sequence[str], *, storage: Path, trials: int
) -> Iterator[tuple[str, list[DriverCost], float]]:
    """Run sweeps of trials with made-up scores in this process; no network is trained.

    Everything else is real: samplers, pruner, study on disk, journals and their upload, status,
    results and figures. Before each measurement the study is filled up with ended trials.

    Args:
        recipe: The sweep whose space, objectives, pruner and constraints are used.
        overrides: Items `field=value` for the base experiment, `sweep.field=value` for the recipe;
            with `sweep.sampler.name` that sampler alone is measured.
        storage: Folder that takes the sweeps.
        trials: Trials of each sweep; the cost is measured at each of `MARKS` up to it.

    Yields:
        Sampler, its costs by number of trials, and CPU seconds of the last sweep's end in all.

    Raises:
        ConfigError: As `load_sweep`, and where the space has fewer points.
    """
    chosen = any(item.startswith("sweep.sampler.name=") for item in overrides)
    for name in (None,) if chosen else SAMPLERS:
        items = [*overrides, *(() if name is None else (f"sweep.sampler.name={name}",))]
        plan = load_sweep(recipe, items)
        place = storage / f"driver-{plan.recipe.sampler.name}-{time.time_ns()}"
        clock = StageClock()
        costs: list[DriverCost] = []
        end = 0.0
        with _timed_calls(clock):
            for mark in [mark for mark in MARKS if mark <= trials]:
                _fill_study(plan, place / _NAME, mark - _WINDOW)
                readings: list[dict[str, float]] = []
                sweep(
                    recipe,
                    items,
                    SweepOptions(
                        storage=place,
                        trials=mark,
                        here=True,
                        name=None if costs else _NAME,
                        resume=_NAME if costs else None,
                    ),
                    progress=_ignore_line,
                    show=_ignore_status,
                    work=_made_up_trials(plan, clock, readings),
                )
                if len(readings) < 2:
                    raise ConfigError(f"{recipe}: its space has no {mark} points; name another")
                end = sum(clock.read().values()) - sum(readings[-1].values())
                costs.append(_cost(mark, readings))
        yield plan.recipe.sampler.name, costs, end


def _fill_study(plan: SweepPlan, folder: Path, trials: int) -> None:
    """Fill a sweep's study up with ended trials at random points, as a driver would leave them.

    Args:
        plan: The sweep.
        folder: Its folder.
        trials: Trials that the study has afterwards, and at least its queued ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(
        f"sqlite:///{folder / 'study.db'}",
        folder.name,
        [objective.direction for objective in plan.recipe.objectives],
    )
    draws = optuna.create_study(sampler=RandomSampler(seed=trials))
    chance = random.Random(trials)
    for number in range(len(study.get_trials(deepcopy=False)), trials):
        drawn = draws.ask()
        plan.recipe.space.draw(drawn)
        curve = list(_made_up_curve(plan, chance))
        # As of a sweep that prunes: most trials end at the first rung.
        ends = curve if chance.random() < _COMPLETE else curve[:1]
        verdict = Verdict("COMPLETE" if ends is curve else "PRUNED", "made up", ends[-1][0])
        attributes = {
            f"{EVALUATION}{step}": {"metrics": metrics, "seconds": 1.0} for step, metrics in ends
        }
        values = [ends[-1][1][objective.metric] for objective in plan.recipe.objectives]
        study.add_trial(
            create_trial(
                state=TrialState[verdict.state or "FAIL"],
                values=values if verdict.state == "COMPLETE" else None,
                params=drawn.params,
                distributions=drawn.distributions,
                user_attrs={**attributes, "verdict": asdict(verdict), "attempts": 1},
            )
        )
        journal = folder / "trials" / str(number) / "journal"
        Journal(journal, run_name=f"{folder.name}-{number}", tags={}, params={}).close()
        tags = {"state": str(verdict.state), "reason": verdict.reason, "attempts": "1"}
        append_end(journal, tags, "FINISHED")


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


def _made_up_curve(
    plan: SweepPlan, chance: random.Random
) -> Iterator[tuple[int, dict[str, float]]]:
    """Steps and metrics of a trial: mIoU rises towards its end, energy stays, the rest is noise."""
    trainer = plan.base.config.trainer
    quality, cost = chance.uniform(20, 60), chance.uniform(0.1, 2.0)
    names = evaluation_metrics(plan.base.config.data.task)
    for step in range(trainer.evaluate_every, trainer.max_steps + 1, trainer.evaluate_every):
        metrics = {name: chance.uniform(0.0, 0.01) for name in names}
        metrics["val/mIoU"] = quality * step / (step + trainer.evaluate_every)
        metrics["energy/mJ"] = cost
        yield step, metrics


def _made_up_trials(
    plan: SweepPlan, clock: StageClock, readings: list[dict[str, float]]
) -> Callable[[WorkOrder], Generator[TrialReport, None, None]]:
    """Trials that write a journal and report curves by formula, and read the clock when they end.

    Args:
        plan: The sweep.
        clock: Stops the time; what a trial itself takes is not the driver's.
        readings: Takes the clock's reading after each trial.
    """
    last = plan.base.config.trainer.max_steps

    def run_trial(order: WorkOrder) -> Generator[TrialReport, None, None]:
        with clock.stage(_TRIAL):
            curve = list(_made_up_curve(plan, random.Random(order["config"])))
            journal = Journal(
                Path(order["folder"]) / "journal",
                run_name=order["tags"]["run"],
                tags=order["tags"],
                params={},
                parent=order["parent"],
            )
        try:
            for step, metrics in curve:
                with clock.stage(_TRIAL):
                    journal.metrics(step, metrics)
                yield TrialReport(step, metrics, final=step == last, seconds=1.0)
        finally:
            with clock.stage(_TRIAL):
                journal.close()
            readings.append(clock.read())

    return run_trial


def _cost(mark: int, readings: Sequence[dict[str, float]]) -> DriverCost:
    """Mean cost a trial between the first and the last reading."""
    first, last = readings[0], readings[-1]
    trials = len(readings) - 1
    spent = {name: (last.get(name, 0.0) - first.get(name, 0.0)) / trials for name in STAGES}
    return DriverCost(mark, spent)


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
