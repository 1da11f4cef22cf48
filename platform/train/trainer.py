"""Start, resume and finish one training: in this process or on Ray Train workers."""

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint.mirror import Mirror, check_mirror
from ..checkpoint.run_folder import RunFolder
from ..cluster.worker_group import OneWorker, ProcessGroup
from ..config.recipes import ConfigError, Resolved, config_digest, dump
from ..tracking.tracking_uri import check_uri, tracking_uri
from .failure import Decision, PreemptedError, decide
from .faults.preemption import Notice
from .preparation import check_parts, choose_device, load_initial_weights
from .progress import Followed
from .resume import continued
from .tracked_training import TrackedRun
from .worker import run_worker

_log = logging.getLogger(__name__)

_GIVEN_UP_POLL_SECONDS = 1.0
_GIVEN_UP_SECONDS = 10.0
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
    """

    name: str
    folder: Path
    best_step: int
    metrics: dict[str, float]
    classes: list[dict[str, Any]]
    split: str
    contact_sheet: Path
    tracking_uri: str


def train(
    resolved: Resolved,
    *,
    storage: Path,
    name: str | None = None,
    progress: Callable[[str], None] = _log.info,
    tags: Mapping[str, str] | None = None,
) -> TrainOutcome:
    """Train, choose on val, score test once.

    Args:
        resolved: The checked experiment.
        storage: Folder of all runs; every worker must see it.
        name: Name of the run; made of recipe, time and digest if not given.
        progress: Takes a line for a person.
        tags: Further tags for the tracker.

    Raises:
        ConfigError: Where the request is wrong; nothing was started.
        TrainingFailedError: Where training could not be finished.
    """
    storage = storage.absolute()
    load_initial_weights(preflight(resolved, storage), resolved.config)
    folder = storage / (name or run_name(resolved))
    if (folder / "config.yaml").exists():
        raise ConfigError(f"{folder}: there is a run of this name; continue it with --resume")
    run = RunFolder(folder)
    run.write("config.yaml", dump(resolved.config))
    run.write("origins.json", json.dumps(resolved.origins, indent=1))
    try:
        return _run(resolved, run, progress, dict(tags or {}))
    except ValueError:
        # Refused before a worker claimed the folder: nothing is left to resume.
        if not any((folder / "attempts").iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def resume_training(
    name: str,
    overrides: Sequence[str] = (),
    *,
    storage: Path,
    progress: Callable[[str], None] = _log.info,
    tags: Mapping[str, str] | None = None,
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

    Raises:
        ConfigError: Where there is no such run, its data or storage are gone, or a setting must
            stay as it was.
        TrainingFailedError: Where training could not be finished.
    """
    storage = storage.absolute()
    if "://" in name:
        address, _, name = name.rstrip("/").rpartition("/")
        if not (storage / name / "config.yaml").is_file():
            try:
                Mirror(address, name).fetch_run(storage / name)
            except (ValueError, OSError) as error:
                raise ConfigError(f"--resume {address}/{name}: {error}") from error
    path = storage / name / "config.yaml"
    inside = (storage / name).resolve().is_relative_to(storage.resolve())
    if not inside or Path(name).name != name or not path.is_file():
        known = sorted(entry.parent.name for entry in storage.glob("*/config.yaml"))
        raise ConfigError(
            f"--resume {name}: no such run in {storage}; there are: {', '.join(known) or 'none'}"
        )
    run = RunFolder(storage / name)
    resolved = continued(run, overrides)
    preflight(resolved, storage)
    if overrides:
        run.write("config.yaml", dump(resolved.config))
        run.write("origins.json", json.dumps(resolved.origins, indent=1))
    return _run(resolved, run, progress, dict(tags or {}))


def _run(
    resolved: Resolved, run: RunFolder, progress: Callable[[str], None], tags: dict[str, str]
) -> TrainOutcome:
    if (run.path / "result.json").is_file():
        progress(f"{run.path.name} is finished already")
        return _outcome(run)
    started = time.monotonic()
    if resolved.config.trainer.workers == 0:
        _train_here(resolved, run, progress, tags)
    else:
        _train_on_ray(resolved, run, progress, tags)
    progress(f"finished in {time.monotonic() - started:.0f} s")
    return _outcome(run)


def run_name(resolved: Resolved) -> str:
    """Name of a new run: recipe, time, first digits of the configuration's digest."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"{resolved.config.name}-{stamp}-{config_digest(resolved.config)[:6]}"


def preflight(resolved: Resolved, storage: Path) -> nn.Module:
    """Check what can be checked before work starts, but initial weights.

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


def _train_here(
    resolved: Resolved, run: RunFolder, progress: Callable[[str], None], tags: dict[str, str]
) -> None:
    notice = Notice()
    try:
        with notice.on_signal():
            tracked = TrackedRun(resolved, run.path, tags)
            run_worker(tracked, OneWorker(), progress=progress, notice=notice)
    except ConfigError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        again = "" if decide(error) is Decision.RAISE else _again(run)
        raise TrainingFailedError(f"{run.path.name}: {error}{again}") from error


def _outcome(run: RunFolder) -> TrainOutcome:
    result = json.loads((run.path / "result.json").read_text())
    return TrainOutcome(
        name=run.path.name,
        folder=run.path,
        best_step=result["best_step"],
        metrics=result["metrics"],
        classes=result["classes"],
        split=result["split"],
        contact_sheet=run.path / "figures" / "contact_sheet.png",
        tracking_uri=tracking_uri(run.path.parent),
    )


def _train_on_ray(
    resolved: Resolved, run: RunFolder, progress: Callable[[str], None], tags: dict[str, str]
) -> None:
    # Ray is imported only where it is used: without it, `trainer.workers: 0` must still work.
    from ..cluster.cluster_loss import ClusterLostError, interrupted_when_lost, told_while_waiting
    from ..cluster.node_checks import check_nodes
    from ..cluster.session import connected, settings, worker_nodes

    trainer = resolved.config.trainer
    use_gpu = choose_device(trainer.device).type == "cuda"
    # Of this driver alone: the orphans of an earlier one must not speak for it.
    stamp = time.time_ns()
    failure, leave = run.path / f"failure-{stamp}.json", run.path / f"leave-{stamp}"
    fewest = trainer.min_workers or trainer.workers
    with connected(cpus=fewest), Followed(run.path / _PROGRESS, progress):
        # Not before `connected`: Ray reads its authentication mode when it is first imported.
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        environment: dict[str, str] = {}
        nodes = worker_nodes()
        if nodes:
            uri = tracking_uri(run.path.parent)
            check_nodes(nodes, run.path.parent, uri)
            environment = {**settings(), "MLFLOW_TRACKING_URI": uri}
        progress(f"{run.path.name}: starting {trainer.workers} Ray Train workers")
        elastic = trainer.min_workers is not None
        ray_trainer = TorchTrainer(
            ray_worker,
            train_loop_config={
                **TrackedRun(resolved, run.path, tags).to_message(),
                "failure": failure.name,
                "leave": leave.name,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=(fewest, trainer.workers) if elastic else trainer.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": 1},
            ),
            run_config=RunConfig(
                name=f"ray-{run.path.name}-{time.time_ns()}",
                storage_path=str(run.path / "ray"),
                failure_config=FailureConfig(max_failures=trainer.max_failures),
                worker_runtime_env={"env_vars": environment} if environment else None,
            ),
        )
        try:
            # Ray took the signal when it started, to end at once.
            with (
                Notice().on_signal(order=leave),
                told_while_waiting(cpus=fewest, progress=progress),
                interrupted_when_lost(),
            ):
                ray_trainer.fit()
        except ClusterLostError as error:
            raise TrainingFailedError(f"{run.path.name}: {error}{_again(run)}") from error
        except Exception as error:
            if failure.is_file():
                raise _given_up(run, failure) from error
            raise TrainingFailedError(
                f"{run.path.name}: given up after {trainer.max_failures} failures of workers "
                f"({type(error).__name__}: {str(error).strip().splitlines()[-1]})"
                f"{_again(run)}"
            ) from error
    if failure.is_file():
        raise _given_up(run, failure)
    if not (run.path / "result.json").is_file():
        raise TrainingFailedError(f"{run.path.name}: the workers ended without a result")


def _given_up(run: RunFolder, failure: Path) -> TrainingFailedError:
    told = json.loads(failure.read_text())
    again = _again(run) if told["again"] else ""
    return TrainingFailedError(f"{run.path.name}: {told['error']}{again}")


def _again(run: RunFolder) -> str:
    return f"; continue with --resume {run.path.name} --storage {run.path.parent}"


def ray_worker(given: dict[str, Any]) -> None:
    """What each Ray Train worker runs; failures that another attempt would repeat are data."""
    from ..cluster.cluster_loss import leaving

    folder = Path(given["folder"])
    failure = folder / given["failure"]
    if failure.is_file():
        # Restarted only because a worker that waited for one that gave up had to be ended.
        return
    done = threading.Event()
    threading.Thread(target=_end_if_given_up, args=(failure, done), daemon=True).start()
    group = ProcessGroup()
    tracked = TrackedRun.from_message(given)
    notice = Notice()
    notice.watch(leaving, folder / given["leave"])
    progress = None
    if group.rank == 0:
        log = (folder / _PROGRESS).open("a", buffering=1)
        progress = lambda line: print(line, file=log, flush=True)  # noqa: E731
    try:
        run_worker(tracked, group, progress=progress, notice=notice)
    except Exception as error:
        if failure.is_file():
            # Another worker gave up for good: there is nothing to retry.
            return
        left = isinstance(error, PreemptedError)
        if decide(error) is Decision.RETRY and not left:
            raise
        sentence = str(error) if left else f"{type(error).__name__}: {error}"
        text = json.dumps({"error": sentence, "rank": group.rank, "again": left})
        RunFolder(folder).write(failure.name, text)
        # Workers that wait for this one usually get an error at once.
        torch.distributed.destroy_process_group()
    finally:
        done.set()


def _end_if_given_up(failure: Path, done: threading.Event) -> None:
    """End this process where another worker gave up and this one waits for it all the same.

    Leaving a gloo group closes its connections only once nothing refers to it any more, so a
    worker inside of a collective may wait for the rest of its life.
    """
    while not done.wait(_GIVEN_UP_POLL_SECONDS):
        if failure.is_file():
            if not done.wait(_GIVEN_UP_SECONDS):
                os._exit(1)
            return
