"""Whether a run is at work, ended or was interrupted, read from its folder alone."""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...datasets.packed.files import hold_lock
from ..tracking.journal_lines import RECORDS
from .find_run import FoundRun, newest_attempt, trials_of

_VERDICTS = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
_STATUSES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}
# A training writes system metrics every ten seconds, at least every few minutes.
_HEARTBEAT_SECONDS = 180.0
# Between a run's last record and the end of its process, what is left is sent to MLflow.
_LEAVING_SECONDS = 60.0
_TAIL = 1 << 16


def run_state(run: FoundRun) -> str:
    """One word: `running`, `finished`, `pruned`, `failed`, `stopped`, `interrupted` or `new`.

    `stopped` ended on a signal, `interrupted` without a word; both can be continued.
    """
    folder = run.folder
    verdict = read_json(folder / "verdict.json").get("state")
    if verdict in _VERDICTS:
        return _VERDICTS[verdict]
    status = _recorded_end(folder / "journal")
    finished = (folder / "result.json").is_file() or (run.kind == "sweep" and status == "FINISHED")
    if finished and status is not None:
        return "finished"
    if is_live(run):
        return "running"
    if finished:
        return "finished"
    if status is not None:
        return _STATUSES[status]
    started = run.kind == "sweep" or newest_attempt(folder) is not None
    return "interrupted" if started else "new"


def is_live(run: FoundRun) -> bool:
    """Whether a process is at work on a run, or was a moment ago on another machine.

    A sweep is live where a driver holds its lock or one of its trials is live.
    """
    folder = run.folder
    if run.kind == "sweep":
        return _is_locked(folder / "driver.lock") or any(map(is_live, trials_of(folder)))
    if (folder / "verdict.json").is_file():
        return False
    attempt = newest_attempt(folder)
    beside = [folder / "journal" / RECORDS, folder / "progress.log", folder / "config.yaml"]
    newest = max((path.stat().st_mtime for path in beside if path.is_file()), default=0.0)
    silent = time.time() - newest
    here = attempt is not None and attempt["host"] == socket.gethostname()
    process = here and attempt is not None and _is_process_alive(attempt)
    if _recorded_end(folder / "journal") is not None:
        return process and silent < _LEAVING_SECONDS
    return process or (not here and silent < _HEARTBEAT_SECONDS)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _recorded_end(journal: Path) -> str | None:
    """The status that a journal ends with; None where its run began again after it, or goes on."""
    try:
        with (journal / RECORDS).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:  # torn by a kill, or the first of the tail
            continue
        if isinstance(record, dict) and record.get("kind") in ("status", "run"):
            status = record.get("status")
            return status if status in _STATUSES else None
    return None


def _is_process_alive(attempt: Mapping[str, Any]) -> bool:
    import psutil

    try:
        # A later process may have been given the same number.
        return psutil.Process(int(attempt["pid"])).create_time() <= float(attempt["time"]) + 1
    except (psutil.Error, ValueError, TypeError):
        return False


def _is_locked(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with hold_lock(path, wait=False):
            return False
    except BlockingIOError:
        return True
