"""Run the doctor's checks: all of them for `spikeseg doctor`, the cheap ones before work starts."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config.recipes import Resolved
from ..search.sweep_file.plan import SweepPlan
from .catalog import CHECKS
from .findings import Check, Finding, fail, skipped
from .machine import read_machine
from .subject import Subject

_log = logging.getLogger(__name__)

BUDGET_S = 60.0
"""Seconds that all checks together may take; what is left then is skipped."""


class Outcome(NamedTuple):
    """A check and what it found.

    Attributes:
        name: Of the check.
        finding: What it found.
        seconds: How long it took.
    """

    name: str
    finding: Finding
    seconds: float


def run_checks(
    subject: Subject, checks: Sequence[Check] = CHECKS, *, budget: float = BUDGET_S
) -> Iterator[Outcome]:
    """Run checks one after the other; each outcome is there as soon as it is known.

    Args:
        subject: What they look at.
        checks: Which; all of them if not given.
        budget: Seconds after which no further check begins.
    """
    until = time.monotonic() + budget
    for check in checks:
        started = time.monotonic()
        if started > until:
            finding = skipped(f"the checks before it took {budget:g} s")
        else:
            finding = _look(check, subject)
        yield Outcome(check.name, finding, time.monotonic() - started)


def _look(check: Check, subject: Subject) -> Finding:
    try:
        return check.look(subject)
    except (OSError, RuntimeError, ValueError) as error:
        # What a library says of a place that is broken in a way that nobody foresaw.
        _log.debug("the check of %s raised", check.name, exc_info=True)
        return fail(f"{type(error).__name__}: {error}", "see what the sentence names")


def check_before_start(
    work: Resolved | SweepPlan,
    storage: Path,
    *,
    concurrency: int | None = None,
    tell: Callable[[str], None],
) -> None:
    """Run the cheap checks before a training or a sweep starts.

    Args:
        work: The experiment, or the sweep.
        storage: Folder of all runs.
        concurrency: Trials at once that were asked for.
        tell: Takes a line about each warning.

    Raises:
        ValueError: Where work would end at what a check found; names the check and the remedy.
    """
    plan = work if isinstance(work, SweepPlan) else None
    subject = Subject(
        storage=storage.absolute(),
        machine=read_machine(),
        resolved=work.base if isinstance(work, SweepPlan) else work,
        plan=plan,
        concurrency=concurrency,
    )
    failures = []
    for name, finding, _ in run_checks(subject, [check for check in CHECKS if check.cheap]):
        if finding.state == "fail":
            failures.append(f"{name}: {finding.text}; {finding.remedy}")
        elif finding.state == "warn":
            tell(f"{name}: {finding.text} ({finding.remedy})")
    if failures:
        raise ValueError("; ".join(failures))
