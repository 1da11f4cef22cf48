"""Copies checkpoints to the mirror in a thread that training never waits for."""

import logging
import threading
import time
from collections.abc import Callable

import pyarrow as pa

from .mirror import Mirror
from .run_folder import FencedError, RunFolder

_log = logging.getLogger(__name__)


class MirrorThread:
    """Copies the newest checkpoint to the mirror while training goes on.

    Of the checkpoints that come while one is being copied, the newest waits, the others are left
    out. A copy that fails or gets no answer costs a line; the next checkpoint is tried.

    Args:
        mirror: Where checkpoints are copied to, claimed by this process.
        run: The run's folder.
        tell: Takes a line for a person; called in the thread that copies, too.
    """

    def __init__(self, mirror: Mirror, run: RunFolder, tell: Callable[[str], None]) -> None:
        self._mirror = mirror
        self._run = run
        self._tell = tell
        self._changed = threading.Condition()
        self._newest: int | None = None
        self._waiting: int | None = None
        self._copying: int | None = None
        self._copied: int | None = None
        self._failed = False
        self._fenced: FencedError | None = None
        # A daemon: a store that never answers must not hold back the end of the process.
        self._thread = threading.Thread(target=self._work, daemon=True, name="mirror")
        self._thread.start()

    def offer(self, step: int) -> None:
        """Have a checkpoint copied after the one that is being copied, instead of any that waits.

        Args:
            step: Its step; the run's folder has it.

        Raises:
            FencedError: Where an earlier copy found that another process claimed the mirror.
        """
        with self._changed:
            if self._fenced is not None:
                raise self._fenced
            self._newest = self._waiting = step
            self._changed.notify_all()

    def read_step(self) -> int | None:
        """Step of the checkpoint that is being read and must stay in the folder; None for none."""
        with self._changed:
            return self._copying

    def finish(self, seconds: float) -> str | None:
        """Wait for the newest checkpoint's copy, tried once more where it failed.

        Args:
            seconds: Longest wait; a line says that it has begun.

        Returns:
            What the mirror lacks, a sentence; None where it has the newest checkpoint.

        Raises:
            FencedError: Where a copy found that another process claimed the mirror.
        """
        end = time.monotonic() + seconds
        with self._changed:
            waits = self._lacks_newest() and self._fenced is None
            if waits and self._copying != self._newest:
                self._waiting = self._newest
                self._changed.notify_all()
        if waits:
            self._say(
                f"mirror {self._mirror.address}: waiting at most {seconds:.0f} s for the copy of "
                f"step {self._newest}"
            )
        with self._changed:
            while (
                (self._waiting is not None or self._copying is not None)
                and self._fenced is None
                and (left := end - time.monotonic()) > 0
            ):
                self._changed.wait(left)
            if self._fenced is not None:
                raise self._fenced
            if not self._lacks_newest():
                return None
            has = "no checkpoint" if self._copied is None else f"step {self._copied}"
            return (
                f"mirror {self._mirror.address} lacks the checkpoint of step {self._newest}; the "
                f"newest one that this start copied: {has}. The run's folder has all of them"
            )

    def _lacks_newest(self) -> bool:
        return self._newest is not None and self._copied != self._newest

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None:
                    self._changed.wait()
                step, self._waiting = self._waiting, None
                self._copying = step
            self._copy(step)
            with self._changed:
                self._copying = None
                self._changed.notify_all()
                if self._fenced is not None:
                    return

    def _copy(self, step: int) -> None:
        try:
            self._mirror.put(self._run, step)
        except FencedError as error:
            self._fenced = error
            self._say(str(error))
        except (OSError, ValueError, pa.ArrowException) as error:
            self._failed = True
            self._say(
                f"mirror {self._mirror.address}: the checkpoint of step {step} was not copied "
                f"({error}); training goes on, the next checkpoint is tried"
            )
        else:
            self._copied = step
            if self._failed:
                self._failed = False
                self._say(f"mirror {self._mirror.address}: the checkpoint of step {step} is copied")

    def _say(self, line: str) -> None:
        _log.warning("%s", line)
        try:
            self._tell(line)
        except OSError as error:
            _log.warning("not shown: %s", error)
