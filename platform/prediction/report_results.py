"""Results as lines of progress: how many, how fast, how long still; failures by name."""

import time
from collections.abc import Callable

from ..train.progress import StatusLine, format_clock
from .results_table import Result


class ResultReporter:
    """Turns results into lines for a person.

    Args:
        total: Sources in all; None where a pipe says it at its end.
        progress: Takes a line.
    """

    def __init__(self, total: int | None, progress: Callable[[str], None]) -> None:
        self._total = total
        self._progress = progress
        self._started = time.monotonic()
        self._seen = 0

    def __call__(self, result: Result, number: int) -> None:
        """Report a result.

        Args:
            result: What became of a source.
            number: Sources done, kept or failed so far.
        """
        if result.status == "failed":
            where = "" if result.source in result.error else f"{result.source}: "
            self._progress(f"failed: {where}{result.error}")
        self._seen += 1
        rate = self._seen / max(1e-9, time.monotonic() - self._started)
        detail = f"{rate:.1f} images/s"
        total = self._total
        left = "" if total is None else f", ETA {format_clock((total - number) / rate)}"
        shown = f"predicted {number}{'' if total is None else f'/{total}'}, {detail}{left}"
        self._progress(
            StatusLine(
                shown,
                task="predicting",
                done=number,
                # Of a pipe nobody knows: there is always one more.
                total=number + 1 if total is None else total,
                detail=detail,
            )
        )
