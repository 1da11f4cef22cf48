"""Steer a sweep from another process: what it is doing, stop it, give it a point to try.

Orders are files in `steering/` of the sweep's folder, which its driver looks for; every machine
that sees the folder can give them.
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.packed.files import hold_lock, write_file
from ..config.errors import nearest
from ..config.recipes import ConfigError, parse_overrides
from .stored_sweep import StoredSweep
from .sweep_file.plan import check_member
from .sweep_file.space import Point
from .sweep_folder import LOCK

_FOLDER = "steering"
_STOP = "stop"
_LOOK_SECONDS = 1.0


def ask_to_stop(folder: Path) -> str | None:
    """Have a sweep's driver end its trials with a checkpoint, as at a signal.

    Args:
        folder: The sweep's folder.

    Returns:
        Who drives it; None where nobody does, so that there is nothing to stop.
    """
    holder = find_driver(folder)
    if holder is not None:
        (folder / _FOLDER).mkdir(exist_ok=True)
        write_file(folder / _FOLDER / _STOP, "stop\n")
    return holder


def find_driver(folder: Path) -> str | None:
    """Host and process of the driver at work on a sweep; None where there is none."""
    file = folder / LOCK
    if not file.is_file():
        return None
    holder = file.read_text().strip()
    try:
        with hold_lock(file, wait=False):
            return None
    except BlockingIOError:
        return holder or "an unknown process"


@contextlib.contextmanager
def stopped_by_order(folder: Path) -> Iterator[None]:
    """While the block runs, an order to stop does to this process what SIGTERM does.

    Args:
        folder: The sweep's folder; an order to an earlier driver is taken back.
    """
    order = folder / _FOLDER / _STOP
    order.unlink(missing_ok=True)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_SECONDS):
            if order.exists():
                order.unlink(missing_ok=True)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, daemon=True, name="sweep-orders")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def add_point(sweep: StoredSweep, items: Sequence[str]) -> tuple[int, Point]:
    """Give a sweep a point to try, on top of its trials.

    Args:
        sweep: The sweep.
        items: `FIELD=VALUE`; a field is a dimension's key or its end, what is left out is drawn.

    Returns:
        How many points were given by hand by now, and the point.

    Raises:
        ConfigError: Where the point is not in the sweep's space, was tried, or was given already.
    """
    space = sweep.plan.recipe.space
    point: Point = {}
    for name, value in parse_overrides(items).items():
        point[_find_dimension(name, list(space.dimensions))] = value
    if not point:
        raise ConfigError("give at least one FIELD=VALUE of the sweep's space")
    ordered = {key: point[key] for key in space.dimensions if key in point}
    for key, value in ordered.items():
        check_member(space, key, value, ordered, "command line")
    ordered = {key: space.exact(key, value) for key, value in ordered.items()}
    sweep.plan.experiment(ordered)
    if space.is_whole(ordered):
        for record in sweep.records.values():
            # Where configurations are repeated, a record's point holds its seed, too.
            if {key: record.point.get(key) for key in ordered} == ordered:
                raise ConfigError(
                    f"command line: trial {record.number} has this point, it is {record.state}"
                )
    given = read_added(sweep.folder)
    if ordered in given:
        raise ConfigError("command line: this point was given already")
    (sweep.folder / _FOLDER).mkdir(exist_ok=True)
    file = sweep.folder / _FOLDER / f"point-{len(given) + 1:06d}.json"
    write_file(file, json.dumps(ordered, indent=1))
    return len(given) + 1, ordered


def read_added(folder: Path) -> list[Point]:
    """The points that were given by hand, in their order.

    Args:
        folder: The sweep's folder.
    """
    files = sorted((folder / _FOLDER).glob("point-*.json"))
    points: list[Mapping[str, Any]] = [json.loads(file.read_text()) for file in files]
    return [dict(point) for point in points]


def _find_dimension(name: str, keys: Sequence[str]) -> str:
    found = [key for key in keys if key == name] or [k for k in keys if k.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"command line: {name}: several dimensions end so: {', '.join(found)}")
    ends = [key.rpartition(".")[2] for key in keys]
    near = nearest(name, keys) or nearest(name, ends) or f"; it varies {', '.join(keys)}"
    raise ConfigError(f"command line: {name}: the sweep does not vary this field{near}")
