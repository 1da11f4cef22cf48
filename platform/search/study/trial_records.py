"""Reports, verdicts and records of trials: plain data between trial, keeper and scheduler."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["COMPLETE", "PRUNED", "FAIL"]
VERDICT = "verdict.json"
"""File in a trial's folder, written once the study knows its end."""


@dataclass(frozen=True)
class TrialReport:
    """One evaluation of a trial, or the reason why there is none.

    Attributes:
        step: Training steps done.
        metrics: What the evaluation measured, names as in MLflow.
        final: Whether this is the evaluation at full budget.
        replayed: Read back from a checkpoint after a restart.
        seconds: Time since the report before, a failure's too; 0 for replayed ones.
        attempt: How often the trial's folder was claimed by a process, from 1; 0 if it was not.
        failure: Why the trial cannot go on; then the rest counts nothing.
    """

    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    final: bool = False
    replayed: bool = False
    seconds: float = 0.0
    attempt: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the keeper decided after a report.

    Attributes:
        state: None lets the trial go on.
        reason: A sentence; for trials that are COMPLETE it says so.
        step: Training step of the decision.
    """

    state: State | None
    reason: str
    step: int


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes:
        number: Its number in the study.
        point: Dotted key -> value.
        folder: Its folder, the same in every attempt.
        attempt: 1 for a new trial, more for one that a crash interrupted.
    """

    number: int
    point: dict[str, Any]
    folder: Path
    attempt: int


@dataclass
class TrialRecord:
    """A trial as the study has it.

    Attributes:
        number: Its number.
        state: WAITING, RUNNING, COMPLETE, PRUNED or FAIL.
        point: Dotted key -> value.
        history: Training step -> metrics.
        seconds: Time spent on it, as reported; work that a kill undid is not in it.
        reason: Why it ended.
        step: Training step of its end.
        attempts: Starts, the first included.
        violations: Constraints that its result breaks.
        values: Objective values, for COMPLETE trials.
        original: First trial of its configuration, which this one repeats with another seed; None
            for first ones.
        held: Seconds from its begin to its end on the clock; None of one without an end.
    """

    number: int
    state: str
    point: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    step: int = 0
    attempts: int = 1
    violations: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    original: int | None = None
    held: float | None = field(default=None, compare=False)

    @property
    def group(self) -> int:
        """Number of the first trial of its configuration."""
        return self.number if self.original is None else self.original
