"""Writes checkpoints in a second thread, from one reused copy of the training state."""

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from .mirror import Mirror
from .run_folder import RunFolder

_log = logging.getLogger(__name__)


class CheckpointWriter:
    """Copies the state, then writes it in a thread while training goes on.

    Memory beside training is one copy of the tensors, kept and reused, and the bytes of the
    largest file; a save that finds the one before unfinished waits for it.

    Args:
        run: The run's folder, claimed by this process.
        newest: Newest checkpoints kept.
        every: Checkpoints whose step is a multiple of this are kept too; None for none.
        mirror: Where every checkpoint is copied to; None for nowhere.
    """

    def __init__(
        self, run: RunFolder, *, newest: int, every: int | None, mirror: Mirror | None = None
    ) -> None:
        self._run = run
        self._mirror = mirror
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

    def close(self) -> None:
        """End the thread after what it is writing; an error of that write is logged."""
        self._pool.shutdown(wait=True)
        error = None if self._pending is None else self._pending.exception()
        if error is not None:
            _log.warning("the last checkpoint was not written: %s", error)

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
        self._run.retain(self._newest, best_step, every=self._every)
        if self._mirror is not None:
            try:
                self._mirror.put(self._run, step)
            except OSError as error:
                # The run's folder has it; the next checkpoint tries again.
                _log.warning("checkpoint of step %d has no copy in the mirror: %s", step, error)
