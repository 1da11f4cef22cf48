"""Standard output whose reader may leave: what is printed afterwards is lost, work goes on."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class LossyOutput:
    """A text stream that goes nowhere once its reader has left (`spikeseg train ... | head`).

    Args:
        stream: The stream; its descriptor is pointed at the null device then.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or lose it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Flush, or lose it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._lose()

    def finish(self) -> None:
        """Flush at the end of the work, when nobody needs to be told."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._lose(tell=False)

    def _lose(self, *, tell: bool = True) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if tell:
            print("spikeseg: nobody reads the output any more; the work goes on", file=sys.stderr)


@contextlib.contextmanager
def keep_working_without_readers() -> Iterator[None]:
    """While the block runs, make this process's output and errors lossy."""
    before = sys.stdout, sys.stderr
    lossy = [LossyOutput(stream) for stream in before if stream is not None]
    if len(lossy) == len(before):
        sys.stdout, sys.stderr = lossy  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for stream in lossy:
            stream.finish()
        sys.stdout, sys.stderr = before
