"""Status of a sweep: running and ended trials, the best so far, cost, time left."""

import time
from dataclasses import dataclass

from ..evaluation.baselines import describe_baselines, is_degenerate
from ..evaluation.number_text import round_metric
from ..train.progress import StatusLine, format_clock
from .study.study import Keeper
from .study.trial_records import TrialRecord, TrialReport, Verdict
from .sweep_file.plan import SweepPlan
from .sweep_file.point_names import format_point
from .sweep_groups import Group
from .sweep_standing import Standing
from .trial_cost import devices_of_a_trial, seconds_left

# Of the 160 characters of a line, 12 are the time before it.
_WIDEST = 147


@dataclass(frozen=True)
class SweepStatus:
    """A sweep at one moment.

    Attributes:
        name: The sweep's name.
        total: Trials of the whole sweep.
        counts: State -> trials, RUNNING among them.
        running: Trials that run now.
        best: The best finished trial by the first objective; None where none finished.
        scores: Values of the objectives that the sweep is told by so far (`Standing.scores`).
        front: Finished trials that no other beats in every objective, by the first one.
        objectives: Names of the objectives, in the order of a trial's values.
        device_seconds: Time spent by trials x what one takes: GPUs where it takes any, else CPUs.
        eta_seconds: Time until the last trial ends: by the model of seconds once it has three
            trials, else at the rate so far; None before the first evaluation.
        steps: Training steps of a trial's full budget.
        broken: Finished trials that break a constraint, and so are no results.
        degenerate: Results that are no better than an answer that ignores the image.
    """

    name: str
    total: int
    counts: dict[str, int]
    running: list[TrialRecord]
    best: TrialRecord | None
    scores: list[float]
    front: list[TrialRecord]
    objectives: list[str]
    device_seconds: float
    eta_seconds: float | None
    steps: int
    broken: int = 0
    degenerate: int = 0

    @property
    def done(self) -> int:
        """Trials with an end."""
        return sum(number for state, number in self.counts.items() if state != "RUNNING")


class Watcher:
    """Computes the status of a sweep since this driver started.

    Args:
        plan: The sweep.
        keeper: Its keeper.

    Attributes:
        standing: Best trial, front and hypervolume so far.
    """

    def __init__(self, plan: SweepPlan, keeper: Keeper) -> None:
        self._plan = plan
        self._keeper = keeper
        self.standing = Standing(plan, keeper)
        self._started = time.monotonic()
        self._before = self._done()
        self._spent_before = self.standing.seconds + sum(i.seconds for i in keeper.running.values())

    def status(self) -> SweepStatus:
        """Compute the status of the sweep now."""
        keeper, standing = self._keeper, self.standing
        standing.update()
        started = [keeper.running[number] for number in sorted(keeper.running)]
        live = keeper.live_numbers
        counts = {"RUNNING": len(live), **standing.states}
        spent = standing.seconds + sum(item.seconds for item in started)
        done = self._done()
        new = done - self._before
        passed = time.monotonic() - self._started
        rate = passed / new if new > 0 else None
        eta = None if rate is None else rate * (keeper.trials - done)
        worked, left = spent - self._spent_before, seconds_left(self._plan, keeper)
        if left is not None and worked > 0:
            # As many at a time as until now, waiting included.
            eta = left * passed / worked
        return SweepStatus(
            name=keeper.folder.name,
            total=keeper.trials,
            counts=counts,
            running=[item for item in started if item.number in live],
            best=standing.best,
            scores=standing.scores,
            front=standing.front,
            objectives=[objective.metric for objective in self._plan.recipe.objectives],
            device_seconds=spent * devices_of_a_trial(self._plan),
            eta_seconds=eta,
            steps=self._plan.base.config.trainer.max_steps,
            broken=standing.broken,
            degenerate=standing.degenerate,
        )

    def _done(self) -> float:
        """Ended trials, and running ones by the share of their budget that was evaluated."""
        steps = self._plan.base.config.trainer.max_steps
        running = self._keeper.running.values()
        shares = (max(item.history, default=0) / steps for item in running)
        return self._keeper.finished + sum(shares)

    def line(self, number: int, report: TrialReport, verdict: Verdict) -> str:
        """Format what a trial measured, what was decided, and its point."""
        item = self._keeper.records[number]
        values = "  ".join(
            f"{objective.metric} {report.metrics[objective.metric]:.4g}"
            for objective in self._plan.recipe.objectives
            if objective.metric in report.metrics
        )
        steps = self._plan.base.config.trainer.max_steps
        parts = [f"trial {number} step {verdict.step}/{steps}", values]
        if verdict.state is not None:
            broken = [f"breaks {limit}" for limit in item.violations if item.values]
            parts.append(f"{verdict.state} ({', '.join([verdict.reason, *broken])})")
        parts.append(f"[{format_point(item.point)}]")
        if is_degenerate(report.metrics):
            parts.append(f"no better than{describe_baselines(report.metrics, 'val')}")
        return fit_line("  ".join(part for part in parts if part))

    def status_line(self, status: SweepStatus) -> StatusLine:
        """Format how far the sweep is."""
        text = f"{status.name}: {summary(status)}"
        return StatusLine(text, task="sweep", done=status.done, total=status.total)


def fit_line(line: str) -> str:
    """A line that a terminal shows in one or two rows: its end is cut where it is too long."""
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3].rstrip()}..."


def format_trial(plan: SweepPlan, item: TrialRecord) -> str:
    """Number, step, objectives of the newest evaluation and point of a trial in one line."""
    step = max(item.history, default=0)
    last = item.history.get(step, {})
    values = [
        f"{objective.metric} {round_metric(objective.metric, last[objective.metric])}"
        for objective in plan.recipe.objectives
        if objective.metric in last
    ]
    parts = [f"trial {item.number} step {step}", *values, f"[{format_point(item.point)}]"]
    return fit_line("  ".join(parts))


def format_group(plan: SweepPlan, group: Group) -> str:
    """Means over seeds with their intervals, and the point of a configuration, in one line."""
    seeds = len(group.seeds)
    parts = [f"configuration {group.number}, {seeds} seed{'' if seeds == 1 else 's'}"]
    for objective, summary in zip(plan.recipe.objectives, group.summaries, strict=True):
        name, ends = objective.metric, (summary.low, summary.high)
        low, high = (None if end is None else round_metric(name, end) for end in ends)
        interval = "" if low is None else f" [{low}, {high}]"
        parts.append(f"{name} {round_metric(name, summary.mean)}{interval}")
    return fit_line("  ".join([*parts, f"[{format_point(group.point)}]"]))


def summary(status: SweepStatus) -> str:
    """Counts, best, front, cost and end of a sweep in one line."""
    states = [
        f"{status.counts[state]} {word}"
        for state, word in (("RUNNING", "running"), ("PRUNED", "pruned"), ("FAIL", "failed"))
        if status.counts.get(state)
    ]
    if status.broken:
        states.append(f"{status.broken} broke a constraint")
    if status.degenerate:
        states.append(f"{status.degenerate} degenerate")
    best = f", best {status.scores[0]:.4g}" if status.scores else ""
    several = len(status.objectives) > 1 and status.front
    front = f", front of {len(status.front)}" if several else ""
    spent = f", {status.device_seconds:.0f} device-seconds"
    eta = "" if status.eta_seconds is None else f", ETA {format_clock(status.eta_seconds)}"
    others = f" ({', '.join(states)})" if states else ""
    return f"{status.done}/{status.total} done{others}{best}{front}{spent}{eta}"
