"""Folders as runs and sweeps leave them, written by hand: of any state, without a training."""

import json
import os
import time
from pathlib import Path
from typing import Any

from spikeseg.platform.tracking.journal import Journal, Status

OBJECTIVES = [
    {"metric": "val/mIoU", "direction": "maximize"},
    {"metric": "energy/mJ", "direction": "minimize"},
]
CONFIG = """name: toy
data: {path: /data/toy}
init: {segmentor: null}
model: {neuron: {timesteps: 2, levels: 4, normalization: levels}}
"""


def make_run(folder: Path, *, started: float = 1.0, run_id: str = "", config: str = "") -> Path:
    """A run that was started on another machine and has one checkpoint of two evaluations."""
    (folder / "attempts").mkdir(parents=True)
    (folder / "config.yaml").write_text(config or CONFIG)
    start(folder, host="elsewhere", pid=1, at=started)
    (folder / "journal").mkdir()
    if run_id:
        (folder / "journal" / "sent.json").write_text(json.dumps({"run_id": run_id}))
    checkpoint = folder / "checkpoints" / "step-00000004"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    history = [
        {"step": step, "metrics": {"val/mIoU": miou, "energy/mJ": 0.1 * step}}
        for step, miou in ((2, 30.0), (4, 20.0))
    ]
    (checkpoint / "state.json").write_text(json.dumps({"step": 4, "history": history}))
    return folder


def start(folder: Path, *, host: str, pid: int, at: float) -> None:
    """One more attempt of a run."""
    number = len(list((folder / "attempts").iterdir())) + 1
    attempt = {"host": host, "pid": pid, "time": at}
    (folder / "attempts" / f"{number:06d}").write_text(json.dumps(attempt))


def end(folder: Path, status: Status | None) -> None:
    """A journal that ends with a status; None leaves it without one."""
    journal = Journal(folder / "journal", run_name=folder.name, tags={}, params={})
    if status is not None:
        journal.finish(status)
    journal.close()


def grow_old(folder: Path, seconds: float = 3600) -> None:
    """Let everything in a folder be of an hour ago."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def result_row(
    trial: int, miou: Any, energy: Any, state: str = "COMPLETE", broken: str = ""
) -> dict[str, Any]:
    """A row of a sweep's `results.json`."""
    values = {"val/mIoU": miou, "energy/mJ": energy}
    return {"trial": trial, "state": state, **values, "violations": broken}


def make_sweep(folder: Path, rows: list[dict[str, Any]], *, base: str = CONFIG) -> Path:
    """A sweep with a trial for each row of its results."""
    folder.mkdir(parents=True)
    for row in rows:
        trial = make_run(folder / "trials" / str(row["trial"]), run_id=f"{row['trial']}" * 32)
        verdict = {"state": row["state"], "reason": "", "step": 4}
        (trial / "verdict.json").write_text(json.dumps(verdict))
    recipe = {"name": "search", "objectives": OBJECTIVES}
    (folder / "plan.json").write_text(json.dumps({"recipe": recipe, "base": base}))
    (folder / "results.json").write_text(json.dumps(rows))
    return folder
