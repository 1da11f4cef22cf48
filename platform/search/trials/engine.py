"""The queue of trials that every engine works off, and the engine that needs no Ray."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...config.yaml_source import ConfigError
from ..study.study import Keeper
from ..study.trial_records import Proposal, TrialReport, Verdict
from .trial_training import TrialFunction, WorkOrder


class OnReport(Protocol):
    """Called after every report, with the decision on it."""

    def __call__(self, number: int, report: TrialReport, verdict: Verdict) -> None:
        """React to one report."""
        ...


@dataclass(frozen=True)
class TrialQueue:
    """Hands out work orders of trials and takes their reports in.

    Attributes:
        keeper: Proposes, judges and writes the study.
        prepare: Makes a work order of a proposal; raises `ConfigError` where the model refuses.
        on_report: Called after every report and decision, also for processes that were lost.
        trial_function: Turns a work order into reports; a training, unless a test says otherwise.
        leave: File that is there once the sweep is told to end; None where nobody makes one.
        take_points: Hands points that were given by hand meanwhile to the keeper.
    """

    keeper: Keeper
    prepare: Callable[[Proposal], WorkOrder]
    on_report: OnReport
    trial_function: TrialFunction
    leave: Path | None = None
    take_points: Callable[[], None] = lambda: None

    @property
    def leaving(self) -> bool:
        """Whether the sweep is told to end: no trial begins any more."""
        return self.leave is not None and self.leave.exists()

    def next(self) -> tuple[int, WorkOrder] | None:
        """Number and work order of the next trial; None when none is left.

        A combination that the model refuses fails as a trial, and the next one is taken.
        """
        self.take_points()
        while not self.leaving and (proposal := self.keeper.next()) is not None:
            try:
                return proposal.number, self.prepare(proposal)
            except ConfigError as error:
                self.report(proposal.number, TrialReport(failure=f"refused: {error}"))
        return None

    def report(self, number: int, report: TrialReport) -> Verdict:
        """Hand a report to the keeper and pass its decision on, once for the end of a trial."""
        running = number in self.keeper.live_numbers
        verdict = self.keeper.report(number, report)
        if running:
            self.on_report(number, report, verdict)
        return verdict

    def lost(self, number: int, reason: str) -> None:
        """Report that a trial's process is gone for good; ignored where the trial had ended."""
        verdict = self.keeper.lost(number, reason)
        if verdict is not None:
            self.on_report(number, TrialReport(step=verdict.step, failure=reason), verdict)


def run_here(queue: TrialQueue) -> None:
    """Run one trial after the other in this process, without Ray.

    Args:
        queue: The sweep's trials.

    Raises:
        PreemptedError: Where a trial was told to end, and has kept its checkpoint.
    """
    while (trial := queue.next()) is not None:
        number, order = trial
        with closing(queue.trial_function(order)) as reports:
            for report in reports:
                if queue.report(number, report).state is not None:
                    break
        queue.lost(number, "ended before its full budget")
