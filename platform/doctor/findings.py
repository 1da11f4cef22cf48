"""What a check of the doctor says: its state, a sentence with the figures, and the remedy."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

State = Literal["ok", "warn", "fail", "skipped"]


class Finding(NamedTuple):
    """Outcome of one check.

    Attributes:
        state: `fail` is what the work will end at; `warn` what costs time, room or certainty;
            `skipped` is what could not be looked at here.
        text: What was seen, with figures and units.
        remedy: What to do; empty where nothing is to be done.
    """

    state: State
    text: str
    remedy: str = ""


class Check(NamedTuple):
    """One row of the table of checks.

    Attributes:
        name: Such as `open files`.
        look: The function that looks; takes a `Subject`.
        cheap: Whether `train` and `sweep` run it before they start: milliseconds, no network.
    """

    name: str
    look: Callable[[Any], Finding]
    cheap: bool = False


def ok(text: str) -> Finding:
    """A finding about which nothing is to be done."""
    return Finding("ok", text)


def warn(text: str, remedy: str) -> Finding:
    """A finding that costs time, room or certainty."""
    return Finding("warn", text, remedy)


def fail(text: str, remedy: str) -> Finding:
    """A finding that the work will end at."""
    return Finding("fail", text, remedy)


def skipped(reason: str) -> Finding:
    """What could not be looked at, and why."""
    return Finding("skipped", reason)


def format_bytes(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1, such as `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
