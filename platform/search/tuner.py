"""Run a sweep: Optuna proposes through the keeper, Ray Tune runs, MLflow shows."""

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cluster import connected
from ..config import ConfigError, dump
from ..train.checkpoint import RunFolder
from ..train.trainer import preflight
from .outcome import finish_sweep
from .recipe import SweepPlan, load_sweep
from .study import Keeper
from .tracked import SweepRecord
from .verdict import Proposal, TrialRecord, TrialReport, Verdict


@dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    Attributes:
        number: Its number in the study.
        params: Dotted key -> value.
        values: Objective -> value.
        folder: Its run folder; `spikeseg evaluate` takes it.
    """

    number: int
    params: dict[str, Any]
    values: dict[str, float]
    folder: Path


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep left behind.

    Attributes:
        name: The sweep's name; `--resume NAME` takes it.
        folder: Its folder: study, trials, results table, best recipe, figures.
        best: The best trial by the first objective; None where none finished.
        front: Trials that no other beats in every objective.
        counts: State -> trials.
    """

    name: str
    folder: Path
    best: TrialResult | None
    front: list[TrialResult]
    counts: dict[str, int]


def sweep(
    recipe: str,
    overrides: Sequence[str],
    *,
    trials: int | None,
    storage: Path,
    resume: str | None = None,
    name: str | None = None,
    concurrency: int | None = None,
    progress: Callable[[str], None],
) -> SweepOutcome:
    """Run or continue a sweep.

    Args:
        recipe: Name of a shipped sweep, or path of a YAML file.
        overrides: Items `field=value` for the base experiment.
        trials: Trials of the whole sweep; the recipe's number if not given.
        storage: Folder of all runs.
        resume: Name of a sweep to continue; the recipe and overrides must be the same.
        name: Name of a new sweep; made of recipe and time if not given.
        concurrency: Trials at once; as many as fit if not given.
        progress: Takes a line for a person.

    Raises:
        ConfigError: Where the request is wrong; no trial was started.
        ValueError: Where the concurrency cannot fit the cluster; names the sum.
    """
    plan = load_sweep(recipe, overrides)
    if plan.recipe.workers_per_trial > 1:
        raise ConfigError("workers_per_trial: more than 1 is not supported yet; trials train alone")
    storage = storage.absolute()
    preflight(plan.base, storage)
    folder = _sweep_folder(plan, storage, resume, name)
    wanted = trials or plan.recipe.trials
    keeper = Keeper(
        plan,
        folder,
        storage=os.environ.get("SPIKESEG_STUDY", f"sqlite:///{folder / 'study.db'}"),
        trials=wanted,
    )
    record = SweepRecord(plan, folder, storage, trials=keeper.trials)
    try:
        if keeper.finished < keeper.trials:
            _run(plan, keeper, record, concurrency, progress)
        record.finish(keeper)
        front = finish_sweep(plan, keeper, folder, record)
    finally:
        record.close()
    best = _best(plan, keeper)
    return SweepOutcome(
        name=folder.name,
        folder=folder,
        best=None if best is None else _result(plan, keeper, best),
        front=[_result(plan, keeper, item) for item in front],
        counts=dict(Counter(item.state for item in keeper.records.values())),
    )


def _sweep_folder(plan: SweepPlan, storage: Path, resume: str | None, name: str | None) -> Path:
    digest = json.dumps([plan.recipe.model_dump(mode="json"), dump(plan.base.config)])
    if resume is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = storage / (name or f"sweep-{plan.recipe.name}-{stamp}")
        if (folder / "plan.json").exists():
            raise ConfigError(f"{folder}: there is a sweep of this name; continue it with --resume")
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(digest)
        return folder
    folder = storage / resume
    if not (folder / "plan.json").is_file():
        known = sorted(entry.parent.name for entry in storage.glob("*/plan.json"))
        raise ConfigError(
            f"--resume {resume}: no such sweep in {storage}; there are: "
            f"{', '.join(known) or 'none'}"
        )
    if (folder / "plan.json").read_text() != digest:
        raise ConfigError(
            f"--resume {resume}: recipe or overrides differ from those it was started with"
        )
    return folder


def _run(
    plan: SweepPlan,
    keeper: Keeper,
    record: SweepRecord,
    concurrency: int | None,
    progress: Callable[[str], None],
) -> None:
    resources = plan.recipe.resources
    at_once = concurrency or plan.recipe.concurrency
    with connected(cpus=(at_once or 1) * resources.cpu), tempfile.TemporaryDirectory() as scratch:
        # Not before `connected`: Ray reads its authentication mode when it is first imported.
        import ray
        from ray import tune

        from .faces import KeeperScheduler, KeeperSearcher, TrialWork

        offered = ray.cluster_resources()
        fits = int(offered.get("CPU", 0) // resources.cpu) if resources.cpu else keeper.trials
        if resources.gpu:
            fits = min(fits, int(offered.get("GPU", 0) // resources.gpu))
        if fits < (at_once or 1):
            raise ConfigError(
                f"{at_once or 1} trials at once need {(at_once or 1) * resources.cpu:g} CPUs and "
                f"{(at_once or 1) * resources.gpu:g} GPUs, the cluster has "
                f"{offered.get('CPU', 0):g} and {offered.get('GPU', 0):g}"
            )
        at_once = min(at_once or fits, fits, keeper.trials)
        progress(
            f"{keeper.folder.name}: {keeper.trials} trials, {at_once} at once, "
            f"{keeper.finished} done before"
        )
        started = time.monotonic()
        done_before = keeper.finished

        def told(number: int, report: TrialReport, verdict: Verdict) -> None:
            item = keeper.records[number]
            if verdict.state is not None:
                record.trial_ended(item)
            if report.replayed:
                return
            progress(_line(plan, keeper, item, report, verdict, started, done_before))

        def lost(number: int, verdict: Verdict) -> None:
            record.trial_ended(keeper.records[number])
            progress(f"trial {number}: FAIL at step {verdict.step}: {verdict.reason}")

        def prepare(proposal: Proposal) -> dict[str, Any]:
            resolved = plan.experiment(proposal.point)
            run = RunFolder(proposal.folder)
            run.write("config.yaml", dump(resolved.config))
            run.write("origins.json", json.dumps(resolved.origins, indent=1))
            return {
                "number": proposal.number,
                "config": dump(resolved.config),
                "origins": resolved.origins,
                "folder": str(proposal.folder),
                "parent": record.journal.id,
                "tags": {
                    "run_name": f"{keeper.folder.name}-{proposal.number}",
                    "sweep": keeper.folder.name,
                    "trial": str(proposal.number),
                    "attempt": str(proposal.attempt),
                },
            }

        tune.Tuner(
            tune.with_resources(TrialWork, {"cpu": resources.cpu, "gpu": resources.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=KeeperSearcher(keeper, prepare, lost),
                scheduler=KeeperScheduler(keeper, told),
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{time.time_ns()}",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=plan.recipe.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0),
                verbose=0,
            ),
        ).fit()


def _line(
    plan: SweepPlan,
    keeper: Keeper,
    item: TrialRecord,
    report: TrialReport,
    verdict: Verdict,
    started: float,
    done_before: int,
) -> str:
    """One line of progress: what was measured, what was decided, how far the sweep is."""
    values = "  ".join(
        f"{objective.metric} {report.metrics[objective.metric]:.4g}"
        for objective in plan.recipe.objectives
        if objective.metric in report.metrics
    )
    done = keeper.finished
    ended = "" if verdict.state is None else f"  {verdict.state} ({verdict.reason})"
    left = ""
    if done > done_before:
        rate = (time.monotonic() - started) / (done - done_before)
        left = f", ETA {rate * (keeper.trials - done):.0f} s"
    point = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in item.point.items())
    return (
        f"trial {item.number} step {report.step}: {values}{ended}  [{point}]  "
        f"{done}/{keeper.trials} done{left}"
    )


def _best(plan: SweepPlan, keeper: Keeper) -> TrialRecord | None:
    """The best finished trial by the first objective that keeps every constraint."""
    sign = plan.recipe.objectives[0].sign
    done = [r for r in keeper.records.values() if r.state == "COMPLETE" and not r.violations]
    return min(done, key=lambda r: (sign * r.values[0], r.number), default=None)


def _result(plan: SweepPlan, keeper: Keeper, item: TrialRecord) -> TrialResult:
    names = [objective.metric for objective in plan.recipe.objectives]
    return TrialResult(
        number=item.number,
        params=dict(item.point),
        values=dict(zip(names, item.values, strict=True)),
        folder=keeper.folder / "trials" / str(item.number),
    )
