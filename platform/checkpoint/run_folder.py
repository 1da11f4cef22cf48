"""A run's folder: who owns it, its checkpoints, the newest one whose hashes hold.

Layout: `config.yaml`, `attempts/<n>` (one file per start, the highest number owns the folder),
`checkpoints/step-<step>/` (safetensors, `state.json`, `manifest.json` written last),
`checkpoints.begun` (there has been one),
`quarantine/` (checkpoints whose hashes do not hold), `journal/`, `result.json`.
"""

import json
import logging
import os
import re
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...datasets.packed.files import (
    delete_folder,
    flush_to_disk,
    named_in_errors,
    write_file,
)
from .checkpoint import (
    Checkpoint,
    Evaluation,
    rank_score,
    read_checkpoint,
    write_checkpoint,
    write_synced,
)

_log = logging.getLogger(__name__)


_LEAVING = "deleting"
_STEPS = "step-" + 8 * "[0-9]"
_MARK = "checkpoints.begun"


class FencedError(RuntimeError):
    """This process no longer owns the run's folder: a later attempt took it over."""


class NoGoodCheckpointError(RuntimeError):
    """The run has checkpoints, and the hashes of none of them hold."""


class RunFolder:
    """One run's folder on storage that every worker sees.

    Args:
        path: The folder; made if it is not there.

    Attributes:
        attempt: Number of this process's claim; 0 before.
        damaged: A sentence for each checkpoint that `newest` had to leave out.

    Raises:
        ValueError: Where the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt = 0
        self.damaged: list[str] = []
        try:
            (path / "attempts").mkdir(parents=True, exist_ok=True)
            (path / "checkpoints").mkdir(exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{path}: the run's folder cannot be written: {error.strerror}"
            ) from error

    def claim(self) -> int:
        """Become the folder's owner; earlier owners can write no more.

        Returns:
            The number of this attempt, from 1. Half-written checkpoints are cleared away.
        """
        number = self._owner() + 1
        while True:
            attempt = self.path / "attempts" / f"{number:06d}"
            try:
                with named_in_errors(attempt), attempt.open("x") as file:
                    json.dump(
                        {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()},
                        file,
                    )
                break
            except FileExistsError:
                number += 1
        self.attempt = number
        for leftover in (self.path / "checkpoints").glob(f".{_LEAVING}-*"):
            self._put_back(leftover)
        for leftover in (self.path / "checkpoints").glob(f".{_LEAVING}-*"):
            delete_folder(leftover)
        for leftover in (self.path / "checkpoints").glob(".writing-*"):
            # A later attempt may have claimed the folder meanwhile, and be at work.
            if int(leftover.name.rpartition("-")[2]) < number:
                delete_folder(leftover)
        return number

    def _put_back(self, leaving: Path) -> None:
        """Bring back a whole checkpoint that was to be replaced by one that never came."""
        name = re.search(r"step-\d+", leaving.name)
        if name is None or (leaving.parent / name[0]).exists():
            return
        checkpoint = leaving.rename(leaving.with_name(name[0]))
        try:
            read_checkpoint(checkpoint)
        except ValueError:
            # Its deletion had begun, and may not come to its end: it must not pass for one.
            checkpoint.rename(leaving)

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> Path:
        """Write a checkpoint under a temporary name and rename it once it is whole.

        Args:
            step: Optimizer steps done.
            tensors: File name -> tensors by name.
            state: What JSON can hold; `step` is added.

        Returns:
            The checkpoint's folder.

        Raises:
            FencedError: Where a later attempt owns the folder.
            OSError: Where storage refuses; earlier checkpoints stay as they are.
        """
        final = self.path / "checkpoints" / f"step-{step:08d}"
        writing = self.path / "checkpoints" / f".writing-{step:08d}-{self.attempt}"
        delete_folder(writing)
        try:
            write_checkpoint(writing, step, tensors, state)
            self._place(writing, final)
            flush_to_disk(final.parent)
            self._mark()
        except BaseException as error:
            delete_folder(writing)
            if isinstance(error, OSError):
                # A later attempt clears away what it finds half-written: then that is the reason.
                self.check_owner()
            raise
        return final

    def _mark(self) -> None:
        """Mark that the run has had a checkpoint: if all are gone later, they were deleted."""
        if not (self.path / _MARK).exists():
            write_synced(self.path / _MARK, b"")

    def _place(self, writing: Path, final: Path, *, tries: int = 5) -> None:
        """Rename a complete checkpoint to its name; retried while a fenced writer interferes."""
        for left in reversed(range(tries)):
            self.check_owner()
            try:
                if final.exists():
                    # Training took these steps anew (a rollback, or another number of workers).
                    leaving = final.with_name(f".{_LEAVING}-{final.name}-{self.attempt}")
                    final.rename(leaving)
                    delete_folder(leaving)
                writing.rename(final)
                return
            except OSError:
                if not left or not writing.exists():
                    raise

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose hashes hold; others are left out, with a warning.

        Where this process has claimed the folder, those go to `quarantine/`: only the run's own
        writer may move what is in it.

        Returns:
            None where the run never had a checkpoint.

        Raises:
            NoGoodCheckpointError: Where it has or had some, and none is good.
            OSError: Where storage does not let one be read, which says nothing about it.
        """
        good, damaged = _find_good(self.path)
        self.damaged.clear()
        for folder, error in damaged:
            line = f"checkpoint left out: {error}"
            if self.attempt:
                self.check_owner()
                line += f" (moved to {self._quarantine(folder)})"
            self.damaged.append(line)
            _log.warning("%s", line)
        if good is None:
            _require_none_before(self.path)
        return good

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of one step.

        Raises:
            ValueError: Where it is missing or damaged.
        """
        return read_checkpoint(self.path / "checkpoints" / f"step-{step:08d}")

    def best(self, history: Sequence[Evaluation]) -> tuple[Evaluation, Checkpoint]:
        """The evaluation with the highest val/mIoU among those whose checkpoint is good; and that.

        Raises:
            ValueError: Where there is none.
        """
        for evaluation in sorted(history, key=lambda item: -rank_score(item.metrics)):
            try:
                return evaluation, self.at(evaluation.step)
            except ValueError as error:
                _log.warning("evaluation of step %d is passed over: %s", evaluation.step, error)
        raise ValueError(f"{self.path}: no evaluation's checkpoint is good")

    def retain(
        self, newest: int, steps: Collection[int | None], *, every: int | None = None
    ) -> None:
        """Delete all but the newest checkpoints, those of some steps, and of every n-th step.

        Args:
            newest: Newest checkpoints kept.
            steps: Further steps whose checkpoints are kept: the best one, one that is being read.
            every: Keep the checkpoints whose step is a multiple of this.

        Raises:
            FencedError: Where a later attempt owns the folder.
        """
        folders = sorted((self.path / "checkpoints").glob(_STEPS))
        for folder in folders[:-newest]:
            step = int(folder.name.partition("-")[2])
            if step in steps or (every is not None and step % every == 0):
                continue
            self.check_owner()
            # Renamed first: a kill in the middle leaves no checkpoint that is half there.
            leaving = folder.with_name(f".{_LEAVING}-{folder.name}-{self.attempt}")
            try:
                folder.rename(leaving)
            except OSError as error:
                _log.warning("%s: not deleted, tried again later: %s", folder, error.strerror)
        # Those that could not be deleted whole before, too.
        for leaving in (self.path / "checkpoints").glob(f".{_LEAVING}-*-{self.attempt}"):
            delete_folder(leaving)

    def check_owner(self) -> None:
        """Raise `FencedError` where a later attempt owns the folder."""
        owner = self._owner()
        if owner != self.attempt:
            raise FencedError(
                f"{self.path}: attempt {self.attempt} was replaced by attempt {owner}; "
                "this process stops without writing"
            )

    def write(self, name: str, text: str) -> None:
        """Write a small file of the run whole or not at all."""
        write_file(self.path / name, text, durable=True)

    def _owner(self) -> int:
        names = (entry.name for entry in (self.path / "attempts").iterdir())
        numbers = [int(name) for name in names if name.isdecimal()]
        return max(numbers, default=0)

    def _quarantine(self, folder: Path) -> Path:
        target = self.path / "quarantine"
        target.mkdir(exist_ok=True)
        moved = target / f"{folder.name}-{time.time_ns()}"
        folder.rename(moved)
        return moved


def find_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint that a folder is, or the best one of the run that it is.

    Args:
        folder: A checkpoint's folder, or a run's.

    Raises:
        ValueError: Where it is neither, or has no checkpoint yet.
        NoGoodCheckpointError: Where the run has checkpoints and none is good.
    """
    if (folder / "manifest.json").is_file():
        return read_checkpoint(folder)
    if not (folder / "checkpoints").is_dir():
        raise ValueError(f"{folder}: neither a checkpoint nor the folder of a run")
    newest, damaged = _find_good(folder)
    for _, error in damaged:
        _log.warning("checkpoint left out: %s", error)
    if newest is None:
        _require_none_before(folder)
        raise ValueError(f"{folder}: the run has no checkpoint yet")
    if not newest.state["history"]:
        raise ValueError(
            f"{folder}: the run has had no evaluation yet; name one of its checkpoints, as "
            f"{newest.path}"
        )
    best = max(newest.state["history"], key=lambda item: rank_score(item["metrics"]))
    return read_checkpoint(folder / "checkpoints" / f"step-{best['step']:08d}")


def _find_good(path: Path) -> tuple[Checkpoint | None, list[tuple[Path, ValueError]]]:
    """Find a run's newest checkpoint whose hashes hold, and the newer ones with what is wrong.

    Nothing is changed. Whoever reads a run of others may not move anything in it.
    """
    damaged: list[tuple[Path, ValueError]] = []
    for folder in sorted((path / "checkpoints").glob(_STEPS), reverse=True):
        try:
            return read_checkpoint(folder), damaged
        except ValueError as error:
            damaged.append((folder, error))
    return None, damaged


def _require_none_before(path: Path) -> None:
    """Refuse a run without a good checkpoint that has or had some: it is no fresh start."""
    # Those that an earlier start moved away count too: it must not be zero the second time.
    places = ((path / "quarantine", "step-*"), (path / "checkpoints", _STEPS))
    bad = {place: len(list(place.glob(pattern))) for place, pattern in places}
    if any(bad.values()):
        where = " and ".join(str(place) for place, count in bad.items() if count)
        raise NoGoodCheckpointError(
            f"{path}: none of its {sum(bad.values())} checkpoints is good; they are kept in "
            f"{where}. Start a new run, or put a good copy back"
        )
    if (path / _MARK).exists():
        raise NoGoodCheckpointError(
            f"{path}: its checkpoints are gone; it had some ({_MARK} says so). Put a copy "
            "back, or start a new run"
        )
