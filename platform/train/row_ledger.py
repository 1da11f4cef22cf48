"""Which rows each step was trained on, and which of them the final weights come from."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_FOLDER = "ledger"


class LedgerEntry(NamedTuple):
    """One micro-batch.

    Attributes:
        step: Optimizer step, from 0.
        micro_batch: Its number within the step.
        ids: Row ids in their order.
    """

    step: int
    micro_batch: int
    ids: list[str]


class Ledger:
    """One worker's file of one attempt; a line survives the death of its process.

    Args:
        folder: The run's folder.
        attempt: Number of this attempt.
        rank: The worker's rank.
    """

    def __init__(self, folder: Path, *, attempt: int, rank: int) -> None:
        (folder / _FOLDER).mkdir(exist_ok=True)
        path = folder / _FOLDER / f"{attempt:06d}-{rank}.jsonl"
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, entry: LedgerEntry) -> None:
        """Append one micro-batch."""
        self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def path_to_weights(folder: Path, steps: int) -> list[LedgerEntry]:
    """The micro-batches that the weights after `steps` steps were made of, in order.

    A step that several attempts did counts once, as the last of them did it: each attempt goes on
    from a checkpoint, so what an earlier one did beyond that checkpoint is not in the weights.
    Steps that `nonfinite: rollback` took back are not in the weights either; the last pass counts.

    Args:
        folder: The run's folder; the run must have been trained with `trainer.ledger`.
        steps: Optimizer steps of the weights.

    Raises:
        ValueError: Where a step is missing.
    """
    done: dict[int, dict[int, LedgerEntry]] = {}
    attempts: dict[int, int] = {}
    for attempt, entry in _lines(folder):
        if attempts.get(entry.step) != attempt:
            attempts[entry.step] = attempt
            done[entry.step] = {}
        done[entry.step][entry.micro_batch] = entry
    missing = [step for step in range(steps) if step not in done]
    if missing:
        raise ValueError(f"{folder / _FOLDER}: no line of step {missing[0]}")
    return [done[step][index] for step in range(steps) for index in sorted(done[step])]


def _lines(folder: Path) -> Iterator[tuple[int, LedgerEntry]]:
    files: Sequence[Path] = sorted((folder / _FOLDER).glob("*.jsonl"))
    for path in files:
        attempt = int(path.name.partition("-")[0])
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield attempt, LedgerEntry(*json.loads(line))
