"""What a sweep would do and cost, before it starts: space, first proposals, time, memory, disk."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..config.recipes import ConfigError, dump, override
from ..loading.data_checks import check_data
from ..tracking.journal import read_records
from ..train.preparation import choose_device, open_data
from ..train.progress import format_clock
from .study.study import Keeper
from .sweep_file.dimensions import Choices
from .sweep_file.plan import SweepPlan
from .sweep_file.point_names import format_point
from .sweep_file.space import Point
from .trials.trial import reports

_SHOWN_PROPOSALS = 8
_STEPS = 4
_TIMESTEPS = "model.neuron.timesteps"


@dataclass(frozen=True)
class TrialCost:
    """What one trial costs, as two short stretches of training let expect.

    Attributes:
        point: The point that was trained.
        start_seconds: Before its first step.
        step_seconds: One optimizer step.
        evaluation_seconds: One evaluation with its checkpoint.
        memory_mb: Largest memory of the process, or of the GPU where there is one.
        disk_mb: Its checkpoints, as many as are kept.
        seconds: A full budget.
    """

    point: Point
    start_seconds: float
    step_seconds: float
    evaluation_seconds: float
    memory_mb: float
    disk_mb: float
    seconds: float


def propose_first(plan: SweepPlan, trials: int) -> list[Point]:
    """The points that a sweep tries first, as far as no result decides them.

    Args:
        plan: The sweep.
        trials: Trials of the whole sweep.
    """
    sampler = plan.recipe.sampler
    free = {"tpe": sampler.startup, "gp": sampler.startup}
    free |= dict.fromkeys(("nsgaii", "nsgaiii"), sampler.population)
    count = min(trials, _SHOWN_PROPOSALS, free.get(sampler.name, trials))
    with tempfile.TemporaryDirectory() as folder:
        keeper = Keeper(plan, Path(folder), storage=f"sqlite:///{folder}/study.db", trials=trials)
        proposals = (keeper.next() for _ in range(max(count, min(trials, len(plan.points)))))
        return [item.point for item in proposals if item is not None][:_SHOWN_PROPOSALS]


def measure_cost(plan: SweepPlan, point: Point) -> TrialCost:
    """Train a point's network for a few steps in a temporary folder and measure what it takes.

    Args:
        plan: The sweep.
        point: The point.

    Raises:
        ConfigError: Where the training failed; names the reason.
    """
    resolved = plan.experiment(point)
    trainer = resolved.config.trainer
    check_data(resolved.config, open_data(resolved.config))
    short = override(resolved, {"trainer.evaluate_every": _STEPS, "trainer.workers": 0}, "dry run")
    images = trainer.micro_batch_size * trainer.micro_batches
    with tempfile.TemporaryDirectory() as folder:
        order = {
            "config": dump(short.config),
            "origins": short.origins,
            "folder": folder,
            "tags": {},
            "parent": "dry-run",
            "workers": 1,
        }
        with closing(reports(order)) as stream:
            first, second = next(stream), next(stream)
        for report in (first, second):
            if report.failure is not None:
                raise ConfigError(f"a trial with {format_point(point)} fails: {report.failure}")
        checkpoint = next(Path(folder).glob("checkpoints/step-*"))
        measured: dict[str, float] = {}
        for record in read_records(Path(folder) / "journal"):
            measured |= record["values"] if record["kind"] == "metrics" else {}
        size = sum(file.stat().st_size for file in checkpoint.iterdir()) / 1e6
    step = images / measured["perf/images_per_s"]
    evaluation = max(0.0, second.seconds - _STEPS * step)
    start = max(0.0, first.seconds - second.seconds)
    evaluations = -(-trainer.max_steps // trainer.evaluate_every)
    return TrialCost(
        point=point,
        start_seconds=start,
        step_seconds=step,
        evaluation_seconds=evaluation,
        memory_mb=measured["perf/memory_mb"],
        disk_mb=size * min(evaluations, trainer.keep_checkpoints + 1),
        seconds=start + trainer.max_steps * step + evaluations * evaluation,
    )


def choose_measured(plan: SweepPlan, point: Point) -> list[Point]:
    """The points whose cost is measured: with fewest and with most timesteps, where these vary."""
    dimension = plan.recipe.space.dimensions.get(_TIMESTEPS)
    if dimension is None or _TIMESTEPS not in point:
        return [point]
    values = dimension.choices if isinstance(dimension, Choices) else dimension.corners()
    return [{**point, _TIMESTEPS: value} for value in sorted({min(values), max(values)})]


def describe_space(plan: SweepPlan) -> Iterator[str]:
    """A line for every dimension."""
    for key, dimension in plan.recipe.space.dimensions.items():
        if isinstance(dimension, Choices):
            text = f"one of {', '.join(map(str, dimension.choices))}"
        else:
            step = "" if dimension.step in (None, 1) else f" in steps of {dimension.step:g}"
            scale = ", evenly in its logarithm" if dimension.log else ""
            text = f"{dimension.low:g} to {dimension.high:g}{step}{scale}"
        when = ", ".join(f"{name}: {values}" for name, values in dimension.when.items())
        yield f"{key}: {text}{f' (where {when})' if when else ''}"


def describe_costs(plan: SweepPlan, costs: list[TrialCost], *, trials: int, at_once: int) -> str:
    """Time, memory and disk of the whole sweep, one line each.

    Args:
        plan: The sweep.
        costs: Of its cheapest and dearest measured trial.
        trials: Trials of the whole sweep.
        at_once: Trials that run side by side.
    """
    low, high = min(item.seconds for item in costs), max(item.seconds for item in costs)
    steps = [item.step_seconds for item in costs]
    repeated = _count_repeated(plan, trials)
    trainings = trials + repeated
    further = f" and at most {repeated} with further seeds" if repeated else ""
    rounds = -(-trainings // at_once)
    pruned = "" if plan.recipe.pruner.rule == "none" else "; what is pruned ends earlier"
    device = choose_device(plan.base.config.trainer.device).type
    memory, disk = (max(getattr(item, name) for item in costs) for name in ("memory_mb", "disk_mb"))
    return "\n".join(
        [
            f"a trial:   {_range(format_clock(low), format_clock(high))} on this machine's "
            f"{device} ({_range(f'{min(steps):.2g}', f'{max(steps):.2g}')} s a step, "
            f"{costs[-1].evaluation_seconds:.2g} s an evaluation)",
            f"the sweep: {_range(format_clock(low * rounds), format_clock(high * rounds))} for "
            f"{trials} trials{further}, {at_once} at once{pruned}",
            f"memory:    about {memory:.0f} MB a trial, {memory * at_once:.0f} MB together",
            f"disk:      about {disk:.1f} MB a trial, {disk * trainings:.0f} MB in all",
        ]
    )


def _count_repeated(plan: SweepPlan, trials: int) -> int:
    """Trainings with further seeds, if every trial is a result and none stops early."""
    replicates = plan.recipe.replicates
    if replicates is None:
        return 0
    if replicates.best is None:
        return trials * (replicates.seeds - 1)
    # Trial 0, the reference, is one of them or joins them.
    return min(replicates.best + 1, trials) * replicates.seeds


def count_at_once(plan: SweepPlan, concurrency: int | None, *, here: bool) -> int:
    """Trials that run side by side: as asked for, else as many as this machine's CPUs allow."""
    if here:
        return 1
    wanted = concurrency or plan.recipe.concurrency
    needs = plan.recipe.resources.cpu * plan.recipe.workers_per_trial
    return wanted or max(1, int((os.cpu_count() or 1) / max(needs, 1e-4)))


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
