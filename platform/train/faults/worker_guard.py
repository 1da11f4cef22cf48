"""Watchdog and row ledger of one worker, opened and closed together."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ...config.schema import TrainerConfig
from ...loading.training_loader import MicroBatch
from ..row_ledger import Ledger, LedgerEntry
from .watchdog import Watchdog


class Guard:
    """Watchdog and ledger of one attempt, each as the configuration asks for it.

    Args:
        trainer: `step_timeout_s` and `ledger`.
        folder: The run's folder.
        attempt: Number of this attempt.
        rank: The worker's rank.
    """

    def __init__(self, trainer: TrainerConfig, folder: Path, *, attempt: int, rank: int) -> None:
        self._watchdog = self._ledger = None
        if trainer.step_timeout_s is not None:
            self._watchdog = Watchdog(
                folder, attempt=attempt, rank=rank, seconds=trainer.step_timeout_s
            )
        if trainer.ledger:
            self._ledger = Ledger(folder, attempt=attempt, rank=rank)

    def __enter__(self) -> "Guard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
        if self._ledger is not None:
            self._ledger.close()

    def feed(self) -> None:
        """Tell the watchdog that something was done."""
        if self._watchdog is not None:
            self._watchdog.feed()

    def rest(self) -> None:
        """Let the watchdog rest while somebody else decides how training goes on."""
        if self._watchdog is not None:
            self._watchdog.rest()

    def write(self, step: int, indices: range, micro_batches: Sequence[MicroBatch]) -> None:
        """Record the rows of this worker's micro-batches of a step."""
        if self._ledger is not None:
            for index, batch in zip(indices, micro_batches, strict=True):
                self._ledger.write(LedgerEntry(step, index, batch.ids))
