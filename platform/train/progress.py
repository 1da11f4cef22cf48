"""Lines for a person, from rank 0's file to the process that somebody watches."""

import threading
from collections.abc import Callable
from pathlib import Path


class Followed:
    """Pass on the lines that rank 0 appends to a file, while the block runs."""

    def __init__(self, path: Path, progress: Callable[[str], None]) -> None:
        self._path = path
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="progress")

    def __enter__(self) -> None:
        self._path.touch()
        self._offset = self._path.stat().st_size
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        with self._path.open() as file:
            file.seek(self._offset)
            for line in file:
                if line.endswith("\n"):
                    self._progress(line.rstrip("\n"))
                    self._offset += len(line.encode())
