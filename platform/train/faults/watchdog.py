"""Ends a worker that hangs, after writing its stacks, so that the attempt is retried.

The timer is the interpreter's own (`faulthandler`): it fires even while the main thread waits
inside of C code that holds the interpreter, as a collective does when another worker hangs.
"""

import faulthandler
from pathlib import Path

_FOLDER = "stacks"


class Watchdog:
    """Ends this process with code 1 where `feed` is not called in time.

    The stacks of all threads go to `stacks/<attempt>-<rank>.txt` in the run's folder. The timer is
    one for the whole process.

    Args:
        folder: The run's folder.
        attempt: Number of this attempt.
        rank: The worker's rank.
        seconds: Longest time between two calls.
    """

    def __init__(self, folder: Path, *, attempt: int, rank: int, seconds: float) -> None:
        self._seconds = seconds
        (folder / _FOLDER).mkdir(exist_ok=True)
        self._path = folder / _FOLDER / f"{attempt:06d}-{rank}.txt"
        self._file = self._path.open("w", encoding="utf-8")

    def feed(self) -> None:
        """Restart the timer."""
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)

    def rest(self) -> None:
        """Stop the timer until the next `feed`: nobody waits for this process now."""
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Stop the timer; the empty file goes."""
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        if self._path.exists() and not self._path.stat().st_size:
            self._path.unlink()


def list_hangs(folder: Path) -> list[Path]:
    """List the stack files of workers that the watchdog ended, oldest first."""
    files = sorted((folder / _FOLDER).glob("*.txt"))
    return [path for path in files if path.stat().st_size]
