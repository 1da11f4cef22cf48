"""Start, resume and finish one training: in this process or on Ray Train workers."""

import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...datasets.packed.files import delete_folder
from ..checkpoint.mirror import Mirror, check_mirror
from ..checkpoint.run_folder import RunFolder
from ..cluster.worker_group import OneWorker, ProcessGroup
from ..config.recipes import ConfigError, Resolved, config_digest, dump, load_resolved
from ..config.run_names import check_run_name, make_folder, require_inside, split_mirrored
from ..tracking.step_trace import TracedSteps, check_steps
from ..tracking.tracking_uri import check_uri, tracking_uri
from ..tracking.upload.upload_offset import unsent
from .failure import Decision, PreemptedError, decide
from .faults.preemption import Notice
from .preparation import check_parts, choose_device, load_initial_weights
from .progress import FollowedLog, write_log_line
from .ray_workers import PermanentFailure, WorkerPool, fit_workers
from .resume import resume_config
from .tracked_training import TrackedRun, journal_folder
from .worker import run_worker

_log = logging.getLogger(__name__)

_PROGRESS = "progress.log"


class TrainingFailedError(RuntimeError):
    """Training started and could not be finished (exit code 1)."""


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished training left behind.

    Attributes:
        name: The run's name; `--resume NAME` takes it.
        folder: The run's folder.
        best_step: Step of the checkpoint that val chose.
        metrics: Metrics of that step, and `test/…` where the test split was scored.
        classes: Per-class table of the last scored split (class, IoU, Acc in percent).
        split: The split that table is of.
        contact_sheet: PNG of image, truth, prediction and error.
        tracking_uri: Where MLflow holds the run.
        mirror_lacks: What the mirror lacked at the end, a sentence; None for nothing.
        lost: Sentences about records and pictures that could not be kept.
        unsent: Whether the journal holds records that MLflow lacks; they are safe.
    """

    name: str
    folder: Path
    best_step: int
    metrics: dict[str, float]
    classes: list[dict[str, Any]]
    split: str
    contact_sheet: Path
    tracking_uri: str
    mirror_lacks: str | None = None
    lost: tuple[str, ...] = ()
    unsent: bool = False


def train(
    resolved: Resolved,
    *,
    storage: Path,
    name: str | None = None,
    progress: Callable[[str], None] = _log.info,
    tags: Mapping[str, str] | None = None,
    profile: TracedSteps | None = None,
) -> TrainOutcome:
    """Train, choose on val, score test once.

    Args:
        resolved: The checked experiment.
        storage: Folder of all runs; every worker must see it.
        name: Name of the run; made of recipe, time and digest if not given.
        progress: Takes a line for a person.
        tags: Further tags for the tracker.
        profile: Steps to trace; None for none.

    Raises:
        ConfigError: Where the request is wrong; nothing was started.
        TrainingFailedError: Where training could not be finished.
    """
    storage = storage.absolute()
    made = check_run_name(name or make_run_name(resolved), "the run's name")
    load_initial_weights(preflight(resolved, storage), resolved.config)
    if profile is not None:
        check_steps(profile, resolved.config.trainer.max_steps)
    folder = storage / made if name else make_folder(storage, made)
    if (folder / "config.yaml").exists():
        raise ConfigError(f"{folder}: there is a run of this name; continue it with --resume")
    run = RunFolder(folder)
    run.write("config.yaml", dump(resolved.config))
    run.write("origins.json", json.dumps(resolved.origins, indent=1))
    try:
        return _run(TrackedRun(resolved, run.path, dict(tags or {}), profile=profile), progress)
    except (ValueError, RuntimeError) as error:
        # Refused before a worker claimed the folder: nothing is left to resume.
        resumable = isinstance(error, TrainingFailedError)
        if not resumable and not any((folder / "attempts").iterdir()):
            delete_folder(folder)
        raise


def resume_training(
    name: str,
    overrides: Sequence[str] = (),
    *,
    storage: Path,
    progress: Callable[[str], None] = _log.info,
    tags: Mapping[str, str] | None = None,
    profile: TracedSteps | None = None,
) -> TrainOutcome:
    """Continue a run from its newest good checkpoint, under its own configuration.

    Args:
        name: Name of the run, or its address in a mirror (`s3://bucket/runs/NAME`), from where
            configuration and newest checkpoint are brought into the storage first.
        overrides: Items `field=value` of settings that a run may be continued with; kept for
            later resumes too.
        storage: Folder of all runs.
        progress: Takes a line for a person.
        tags: Further tags for the tracker.
        profile: Steps to trace; None for none.

    Raises:
        ConfigError: Where there is no such run, its data or storage are gone, or a setting must
            stay as it was.
        TrainingFailedError: Where training could not be finished.
    """
    storage = storage.absolute()
    address, name = split_mirrored(name) if "://" in name else ("", name)
    check_run_name(name, "--resume")
    require_inside(storage / name, storage, f"--resume {name}")
    path = storage / name / "config.yaml"
    if address and not path.is_file():
        try:
            Mirror(address, name).fetch_run(storage / name)
        except (ValueError, OSError) as error:
            raise ConfigError(f"--resume {name}: {error}") from error
    if not path.is_file():
        known = sorted(entry.parent.name for entry in storage.glob("*/config.yaml"))
        raise ConfigError(
            f"--resume {name}: no such run in {storage}; there are: {', '.join(known) or 'none'}"
        )
    run = RunFolder(storage / name)
    resolved = resume_config(run, overrides)
    preflight(resolved, storage)
    if profile is not None:
        check_steps(profile, resolved.config.trainer.max_steps)
    if overrides:
        run.write("config.yaml", dump(resolved.config))
        run.write("origins.json", json.dumps(resolved.origins, indent=1))
    return _run(TrackedRun(resolved, run.path, dict(tags or {}), profile=profile), progress)


def _run(tracked: TrackedRun, progress: Callable[[str], None]) -> TrainOutcome:
    run = RunFolder(tracked.folder)
    if (run.path / "result.json").is_file():
        progress(f"{run.path.name} is finished already")
        return _outcome(run)
    started = time.monotonic()
    if tracked.resolved.config.trainer.workers == 0:
        _train_here(tracked, run, progress)
    else:
        _train_on_ray(tracked, run, progress)
    progress(f"finished in {time.monotonic() - started:.0f} s")
    return _outcome(run)


def make_run_name(resolved: Resolved) -> str:
    """Name of a new run: recipe, time, first digits of the configuration's digest."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"{resolved.config.name}-{stamp}-{config_digest(resolved.config)[:6]}"


def preflight(resolved: Resolved, storage: Path) -> nn.Module:
    """Check what can be checked before work starts, except initial weights.

    Returns:
        The model on the meta device.

    Raises:
        ConfigError: Names the key or folder and the rule.
    """
    config = resolved.config
    model = check_parts(config)
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=storage):
            pass
    except OSError as error:
        raise ConfigError(f"storage {storage}: cannot be written ({error.strerror})") from error
    try:
        check_uri(tracking_uri(storage))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if config.trainer.mirror is not None:
        try:
            check_mirror(config.trainer.mirror)
        except ValueError as error:
            raise ConfigError(f"trainer.mirror: {error}") from error
    return model


def _train_here(tracked: TrackedRun, run: RunFolder, progress: Callable[[str], None]) -> None:
    notice = Notice()
    try:
        with notice.on_signal():
            run_worker(tracked, OneWorker(), progress=progress, notice=notice)
    except ConfigError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        again = "" if decide(error) is Decision.RAISE else _again(run)
        raise TrainingFailedError(f"{run.path.name}: {error}{again}") from error


def _outcome(run: RunFolder) -> TrainOutcome:
    result = json.loads((run.path / "result.json").read_text())
    text = (run.path / "config.yaml").read_text()
    return TrainOutcome(
        name=run.path.name,
        folder=run.path,
        best_step=result["best_step"],
        metrics={k: math.nan if v is None else v for k, v in result["metrics"].items()},
        classes=result["classes"],
        split=result["split"],
        contact_sheet=run.path / "figures" / "contact_sheet.png",
        tracking_uri=tracking_uri(run.path.parent),
        mirror_lacks=result.get("mirror_lacks"),
        lost=tuple(result.get("lost", ())),
        unsent=unsent(journal_folder(run.path, load_resolved(text).config)) > 0,
    )


def _train_on_ray(tracked: TrackedRun, run: RunFolder, progress: Callable[[str], None]) -> None:
    # Ray is imported only where it is used: without it, `trainer.workers: 0` must still work.
    from ..cluster.cluster_loss import ClusterLostError, interrupt_when_lost, report_missing_cpus
    from ..cluster.node_checks import check_nodes
    from ..cluster.session import connected, settings, worker_nodes

    trainer = tracked.resolved.config.trainer
    on_gpu = choose_device(trainer.device).type == "cuda"
    # Of this driver alone: the orphans of an earlier one must not speak for it.
    stamp = time.time_ns()
    failure, leave = run.path / f"failure-{stamp}.json", run.path / f"leave-{stamp}"
    fewest = trainer.min_workers or trainer.workers
    with connected(cpus=fewest), FollowedLog(run.path / _PROGRESS, progress):
        environment: dict[str, str] = {}
        uri = tracking_uri(run.path.parent)
        nodes = worker_nodes()
        if nodes:
            check_nodes(nodes, run.path.parent, uri, progress)
            environment = {**settings(), "MLFLOW_TRACKING_URI": uri}
        pool = WorkerPool(
            workers=trainer.workers,
            fewest=trainer.min_workers,
            resources={"CPU": 1, "GPU": int(on_gpu)},
            max_failures=trainer.max_failures,
            environment=environment,
        )
        message = {**tracked._replace(tracker=uri).to_message(), "leave": str(leave)}
        progress(f"{run.path.name}: starting {trainer.workers} Ray Train workers")
        try:
            # Ray took the signal when it started, to end at once.
            with (
                Notice().on_signal(order=leave),
                report_missing_cpus(cpus=fewest, progress=progress),
                interrupt_when_lost(),
            ):
                fit_workers(_train_worker, message, pool, failure=failure, describe=_describe)
        except ClusterLostError as error:
            raise TrainingFailedError(f"{run.path.name}: {error}{_again(run)}") from error
        except Exception as error:
            _raise_permanent(run, failure)
            raise TrainingFailedError(
                f"{run.path.name}: given up after {trainer.max_failures} failures of workers "
                f"({type(error).__name__}: {str(error).strip().splitlines()[-1]})"
                f"{_again(run)}"
            ) from error
    _raise_permanent(run, failure)
    if not (run.path / "result.json").is_file():
        raise TrainingFailedError(f"{run.path.name}: the workers ended without a result")


def _raise_permanent(run: RunFolder, path: Path) -> None:
    """Raise a worker's permanent failure, if there is one."""
    failure = PermanentFailure.read(path)
    if failure is not None:
        again = _again(run) if failure.again else ""
        raise TrainingFailedError(f"{run.path.name}: {failure.error}{again}")


def _again(run: RunFolder) -> str:
    return f"; continue with --resume {run.path.name} --storage {run.path.parent}"


def _train_worker(message: dict[str, Any], group: ProcessGroup) -> None:
    """What each Ray Train worker of a training does."""
    from ..cluster.cluster_loss import is_node_draining

    tracked = TrackedRun.from_message(message)
    notice = Notice()
    notice.watch(is_node_draining, Path(message["leave"]))
    progress = None
    if group.rank == 0:
        log = (tracked.folder / _PROGRESS).open("a", buffering=1)
        progress = lambda line: print(write_log_line(line), file=log, flush=True)  # noqa: E731
    run_worker(tracked, group, progress=progress, notice=notice)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, PreemptedError) else f"{type(error).__name__}: {error}"
