"""The queue of trials that every engine works off, and the engine that needs no Ray."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from ...cluster.signals import first_signal
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
    """

    keeper: Keeper
    prepare: Callable[[Proposal], WorkOrder]
    on_report: OnReport
    trial_function: TrialFunction

    def next(self) -> tuple[int, WorkOrder] | None:
        """Number and work order of the next trial; None when none is left.

        A combination that the model refuses fails as a trial, and the next one is taken.
        """
        while (proposal := self.keeper.next()) is not None:
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


class StoppedError(RuntimeError):
    """The block was interrupted by SIGTERM or Ctrl-C.

    Args:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """While the block runs, SIGTERM interrupts it as Ctrl-C does; the second one as before.

    Ray's own answer to the signal, which it takes when it starts, ends the process in an abort.

    Raises:
        StoppedError: Where the block was interrupted.
    """
    received = [signal.SIGINT]

    def interrupt() -> None:
        # Ray raises an interrupt of its own for Ctrl-C: it carries no number.
        received.append(signal.SIGTERM)
        raise KeyboardInterrupt

    try:
        with first_signal(signal.SIGTERM, interrupt):
            yield
    except KeyboardInterrupt as stop:
        raise StoppedError(received[-1]) from stop


def run_here(queue: TrialQueue) -> None:
    """Run one trial after the other in this process, without Ray.

    Args:
        queue: The sweep's trials.
    """
    while (trial := queue.next()) is not None:
        number, order = trial
        with closing(queue.trial_function(order)) as reports:
            for report in reports:
                if queue.report(number, report).state is not None:
                    break
        queue.lost(number, "ended before its full budget")
