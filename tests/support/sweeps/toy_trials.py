"""Trials that cost nothing: curves by formula, with a folder, a ledger and every way to fail."""

import json
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.config.recipes import Resolved, dump, load_resolved
from spikeseg.platform.search.study.trial_records import Proposal, TrialReport
from spikeseg.platform.search.sweep_file.plan import SweepPlan
from spikeseg.platform.train.failure import PreemptedError
from spikeseg.platform.train.tracked_training import make_journal

NAN, RAISES, DIES, DIES_ONCE = 13, 14, 15, 16


def curve(timesteps: int, levels: int, mask_weight: float, step: int) -> dict[str, float]:
    """Values of a toy trial at a step: more levels and time steps are better and cost more."""
    quality = 50.0 + 5.0 * levels + 2.0 * timesteps - abs(mask_weight - 20.0)
    return {
        "val/mIoU": quality * step / (step + 1),
        "energy/mJ": 0.1 * timesteps * levels,
        "snn/dead_fraction": 1.0 / levels,
    }


def toy(given: dict[str, Any]) -> Generator[TrialReport, None, None]:
    """A trial that keeps its history in its folder, as a training keeps its checkpoints.

    Levels 13 to 16 are not a number, raise, kill their process always, and kill it once.
    """
    resolved = load_resolved(given["config"])
    config = resolved.config
    neuron = config.model.neuron
    folder = Path(given["folder"])
    run = RunFolder(folder)
    attempt = run.claim()
    journal = None
    if given.get("parent"):
        full = Resolved(config, given["origins"])
        journal = make_journal(full, run, 1, given["tags"], parent=given["parent"])
    kept = folder / "toy.json"
    history = json.loads(kept.read_text()) if kept.is_file() else []
    for step, metrics in history:
        final = step >= config.trainer.max_steps
        yield TrialReport(step, metrics, final=final, replayed=True, attempt=attempt)
    step = history[-1][0] if history else 0
    _forget_the_unkept(folder, step)
    while step < config.trainer.max_steps:
        if given.get("leave") and Path(given["leave"]).exists():
            if journal is not None:
                journal.finish("KILLED")
            raise PreemptedError(f"asked to leave at step {step}")
        step += config.trainer.evaluate_every
        seconds = float(os.environ.get("TOY_SECONDS", "0"))
        time.sleep(seconds)
        if neuron.levels == RAISES:
            yield TrialReport(failure="RuntimeError: a toy that raises", attempt=attempt)
            return
        if neuron.levels == DIES or (neuron.levels == DIES_ONCE and attempt == 1 and history):
            os.kill(os.getpid(), signal.SIGKILL)
        metrics = curve(neuron.timesteps, neuron.levels, config.loss.mask_weight, step)
        if neuron.levels == NAN and step > 1:
            metrics["val/mIoU"] = float("nan")
        with (folder / "ledger").open("a") as ledger:
            ledger.write(f"{step}\n")
        history.append((step, metrics))
        run.check_owner()
        run.write("toy.json", json.dumps(history))
        if journal is not None:
            journal.metrics(step, metrics)
        final = step >= config.trainer.max_steps
        yield TrialReport(step, metrics, final=final, seconds=0.01 + seconds, attempt=attempt)


def toy_of_a_node(given: dict[str, Any]) -> Generator[TrialReport, None, None]:
    """A toy trial of a second a step that notes the node of each of its attempts, in `nodes`."""
    import ray

    os.environ["TOY_SECONDS"] = "1"
    with (Path(given["folder"]) / "nodes").open("a") as kept:
        kept.write(ray.get_runtime_context().get_node_id() + "\n")
    yield from toy(given)


def _forget_the_unkept(folder: Path, step: int) -> None:
    """Take back the ledger's last line where a kill came before its step was kept."""
    lines = trained_steps(folder)
    if lines and lines[-1] > step:
        (folder / "ledger").write_text("".join(f"{done}\n" for done in lines[:-1]))


def prepare(plan: SweepPlan, proposal: Proposal) -> dict[str, Any]:
    """The work order of a toy trial without a tracker."""
    resolved = plan.experiment(proposal.point)
    return {
        "config": dump(resolved.config),
        "origins": resolved.origins,
        "folder": str(proposal.folder),
    }


def trained_steps(folder: Path) -> list[int]:
    """Steps that a toy trial worked on, in order; one that was done twice is there twice."""
    ledger = folder / "ledger"
    return [int(line) for line in ledger.read_text().split()] if ledger.is_file() else []
