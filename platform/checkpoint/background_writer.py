"""Writes checkpoints in a second thread, from one reused copy of the training state."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..config.schema import TrainerConfig
from .mirror import Mirror, mirror_name
from .mirror_thread import MirrorThread
from .run_folder import FencedError, RunFolder

_log = logging.getLogger(__name__)

# Longest waits for the mirror: at the end of a training, and where a process must go soon.
_END_SECONDS = 60.0
_LEAVE_SECONDS = 10.0


class CheckpointWriter:
    """Copies the state, then writes it in a thread while training goes on.

    Memory beside training is one copy of the tensors, kept and reused, and the bytes of the
    largest file; a save that finds the one before unfinished waits for it. Nothing but `close`
    waits for the mirror, and that not for long.

    Args:
        run: The run's folder, claimed by this process.
        newest: Newest checkpoints kept.
        every: Checkpoints whose step is a multiple of this are kept too; None for none.
        mirror: Where checkpoints are copied to, claimed by this process; None for nowhere.
        tell: Takes a line for a person about the mirror.

    Attributes:
        mirror: As given.
        mirror_lacks: What the mirror lacks, a sentence, once closed; None for nothing.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        newest: int,
        every: int | None,
        mirror: Mirror | None = None,
        tell: Callable[[str], None] = _log.info,
    ) -> None:
        self._run = run
        self.mirror = mirror
        self._mirror_thread = None if mirror is None else MirrorThread(mirror, run, tell)
        self._tell = tell
        self.mirror_lacks: str | None = None
        self._newest = newest
        self._every = every
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._copies: dict[str, dict[str, Tensor]] = {}

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        best_step: int | None,
    ) -> None:
        """Copy the state and start writing it.

        Args:
            step: Optimizer steps done.
            tensors: File name -> tensors by name.
            state: What JSON can hold.
            best_step: Step whose checkpoint must not be deleted.

        Raises:
            FencedError: Where the save before found that another attempt owns the folder.
            OSError: Where storage refused the save before.
        """
        self.flush()
        copies = {name: self._copy(name, content) for name, content in tensors.items()}
        self._pending = self._pool.submit(self._write, step, copies, state, best_step)

    def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            FencedError: Where another attempt owns the folder.
            OSError: Where storage refused.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self, *, finished: bool = True) -> None:
        """End the thread after what it is writing; an error of that write is logged.

        Args:
            finished: Training came to its end: the mirror is waited for longer.

        Raises:
            FencedError: Where training came to its end, but another process claimed the mirror.
        """
        self._pool.shutdown(wait=True)
        error = None if self._pending is None else self._pending.exception()
        if error is not None:
            _log.warning("the last checkpoint was not written: %s", error)
        if self._mirror_thread is not None:
            try:
                self.mirror_lacks = self._mirror_thread.finish(
                    _END_SECONDS if finished else _LEAVE_SECONDS
                )
            except FencedError:
                if finished:
                    raise
                # What ended training is what is raised.
                return
            if self.mirror_lacks is not None:
                self._tell(self.mirror_lacks)

    def _copy(self, name: str, content: Mapping[str, Tensor]) -> dict[str, Tensor]:
        old = self._copies.get(name, {})
        new: dict[str, Tensor] = {}
        for key, value in content.items():
            value = value.detach()
            target = old.get(key)
            if target is None or target.shape != value.shape or target.dtype != value.dtype:
                target = torch.empty(value.shape, dtype=value.dtype)
            new[key] = target.copy_(value)
        self._copies[name] = new
        return new

    def _write(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        best_step: int | None,
    ) -> None:
        self._run.save(step, tensors, state)
        copied = None
        if self._mirror_thread is not None:
            self._mirror_thread.offer(step)
            copied = self._mirror_thread.read_step()
        self._run.retain(self._newest, {best_step, copied}, every=self._every)


def open_writer(
    run: RunFolder, trainer: TrainerConfig, tell: Callable[[str], None]
) -> CheckpointWriter:
    """Open a run's writer, and claim its mirror where the configuration names one.

    Args:
        run: The run's folder, claimed by this process.
        trainer: What is kept, and where it is copied to.
        tell: Takes a line for a person about the mirror.

    Raises:
        OSError: Where the mirror cannot be written.
    """
    mirror = None
    if trainer.mirror is not None:
        mirror = Mirror(trainer.mirror, mirror_name(run.path))
        mirror.claim(run)
    newest, every = trainer.keep_checkpoints, trainer.keep_every
    return CheckpointWriter(run, newest=newest, every=every, mirror=mirror, tell=tell)
