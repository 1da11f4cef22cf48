"""A step of the GPU benchmark: what it is given, and how its rows reach the report."""

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROWS = "rows.jsonl"


@dataclasses.dataclass(frozen=True)
class Step:
    """One step in its own process.

    Attributes:
        name: Its name in the rows.
        device: `cuda`, or `cpu` in a rehearsal.
        seconds: How long it may take; past that its process is ended.
        folder: Where rows and files go.
        rehearse: Whether sizes are tiny and the kernels are those that g++ built for the CPU.
        data: Packed data to train on; None for generated data.
        started: `time.monotonic()` at its beginning.
    """

    name: str
    device: str
    seconds: float
    folder: Path
    rehearse: bool
    data: Path | None
    started: float = dataclasses.field(default_factory=time.monotonic)

    def emit(self, row: dict[str, Any]) -> None:
        """Append a row to the file of all steps at once, and print it."""
        row = {"step": self.name} | row
        with (self.folder / ROWS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = ", ".join(f"{key} {value}" for key, value in row.items() if key != "step")
        print(f"{self.name}: {shown}", flush=True)

    def seconds_left(self) -> float:
        """Seconds until the step's limit."""
        return self.seconds - (time.monotonic() - self.started)

    def try_check(self, name: str, check: Callable[[], dict[str, Any] | None]) -> bool:
        """Run one check; what it raises is a row and ends nothing else.

        Args:
            name: Name of the check.
            check: Returns further columns of its row.

        Returns:
            Whether it held.
        """
        started = time.monotonic()
        try:
            columns, ok = check() or {}, True
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [""]
            columns, ok = {"error": f"{type(error).__name__}: {lines[0]}"[:500]}, False
            traceback.print_exc()
        seconds = round(time.monotonic() - started, 2)
        self.emit({"case": "check", "check": name, "ok": ok, "seconds": seconds} | columns)
        return ok


@contextlib.contextmanager
def collect_warnings(name: str) -> Iterator[list[str]]:
    """Collect what a module warns of in a block, as of a setting that is left out.

    Args:
        name: Of the module, and so of its logger.
    """
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def run_step(name: str, measure: Callable[[Step], None]) -> None:
    """Run a step as its own process, as the benchmark starts it; ends it with an exit code.

    Args:
        name: Its name.
        measure: What it does.
    """
    parser = argparse.ArgumentParser(description=f"Step {name} of `spikeseg benchmark gpu`.")
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--data", type=Path)
    step = Step(name=name, **vars(parser.parse_args()))
    with ExitStack() as stack:
        if step.rehearse:
            from .host_kernels import host_kernels

            stack.enter_context(host_kernels())
        try:
            measure(step)
        except Exception as error:
            traceback.print_exc()
            step.emit({"case": "error", "error": f"{type(error).__name__}: {error}"[:500]})
            sys.exit(1)
