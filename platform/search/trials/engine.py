"""What runs a sweep's trials: the orders that every engine follows, and the plainest engine."""

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
from .trial_training import Given, Work


class Told(Protocol):
    """Hears of every report and of the decision on it."""

    def __call__(self, number: int, report: TrialReport, verdict: Verdict) -> None:
        """Take one in."""
        ...


@dataclass(frozen=True)
class Orders:
    """How an engine gets trials and whom it tells.

    Attributes:
        keeper: Proposes, judges and writes the study.
        prepare: Makes a work order of a proposal; raises `ConfigError` where the model refuses.
        told: Hears of every report and decision, also of processes that were lost.
        work: Turns a work order into reports; a training, unless a test says otherwise.
    """

    keeper: Keeper
    prepare: Callable[[Proposal], Given]
    told: Told
    work: Work

    def next(self) -> tuple[int, Given] | None:
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
        """Hand a report to the keeper, and its decision on; nobody hears twice of an end."""
        running = number in self.keeper.live_numbers
        verdict = self.keeper.report(number, report)
        if running:
            self.told(number, report, verdict)
        return verdict

    def lost(self, number: int, reason: str) -> None:
        """Say that a trial's process is gone for good; nothing where it had ended before."""
        verdict = self.keeper.lost(number, reason)
        if verdict is not None:
            self.told(number, TrialReport(step=verdict.step, failure=reason), verdict)


class StoppedError(RuntimeError):
    """SIGTERM or Ctrl-C came.

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
    taken = [signal.SIGINT]

    def interrupt() -> None:
        # Ray raises an interrupt of its own for Ctrl-C: it carries no number.
        taken.append(signal.SIGTERM)
        raise KeyboardInterrupt

    try:
        with first_signal(signal.SIGTERM, interrupt):
            yield
    except KeyboardInterrupt as stop:
        raise StoppedError(taken[-1]) from stop


def run_here(orders: Orders) -> None:
    """Run one trial after the other in this process, without Ray.

    Args:
        orders: The sweep's orders.
    """
    while (order := orders.next()) is not None:
        number, given = order
        with closing(orders.work(given)) as reports:
            for report in reports:
                if orders.report(number, report).state is not None:
                    break
        orders.lost(number, "ended before its full budget")
