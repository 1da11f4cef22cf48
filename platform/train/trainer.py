"""Start, resume and finish one training: in this process or on Ray Train workers."""

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...model.segmentor import build_segmentor
from .. import figures
from ..config import ConfigError, Resolved, config_digest, dump, flat, load_resolved
from ..journal import Journal
from ..provenance import run_description, run_tags
from .checkpoint import Evaluation, RunFolder
from .evaluate import class_table
from .failure import Decision, decide
from .loop import Training, choose_device, open_data
from .reduction import OneWorker, ProcessGroup, WorkerGroup

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
    resume: str | None = None,
    name: str | None = None,
    progress: Callable[[str], None] = _log.info,
    tags: Mapping[str, str] | None = None,
) -> TrainOutcome:
    """Train, choose on val, score test once.

    Args:
        resolved: The checked experiment; with `resume`, the run's own configuration counts.
        storage: Folder of all runs; every worker must see it.
        resume: Name of a run to continue.
        name: Name of a new run; made of recipe, time and digest if not given.
        progress: Takes a line for a person.
        tags: Further tags for the tracker.

    Raises:
        ConfigError: Where the request is wrong; nothing was started.
        TrainingFailedError: Where training could not be finished.
    """
    storage = storage.absolute()
    if resume is not None:
        resolved = _stored(storage, resume)
    preflight(resolved, storage)
    config = resolved.config
    name = resume or name or run_name(resolved)
    run = RunFolder(storage / name)
    if resume is None:
        run.write("config.yaml", dump(config))
        run.write("origins.json", json.dumps(resolved.origins, indent=1))
    finished = run.path / "result.json"
    if finished.is_file():
        progress(f"{name} is finished already")
    else:
        started = time.monotonic()
        (run.path / "failure.json").unlink(missing_ok=True)
        if config.trainer.workers == 0:
            _train_here(resolved, run, progress, dict(tags or {}))
        else:
            _train_on_ray(resolved, run, progress, dict(tags or {}))
        progress(f"finished in {time.monotonic() - started:.0f} s")
    return _outcome(run, storage)


def run_name(resolved: Resolved) -> str:
    """Name of a new run: recipe, time, first digits of the configuration's digest."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"{resolved.config.name}-{stamp}-{config_digest(resolved.config)[:6]}"


def preflight(resolved: Resolved, storage: Path) -> None:
    """Check what can be checked before work starts.

    Raises:
        ConfigError: Names the key or folder and the rule.
    """
    config = resolved.config
    open_data(config)
    choose_device(config.trainer.device)
    try:
        with torch.device("meta"):
            build_segmentor(config.model)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    try:
        storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=storage):
            pass
    except OSError as error:
        raise ConfigError(f"storage {storage}: cannot be written ({error.strerror})") from error


def _stored(storage: Path, name: str) -> Resolved:
    path = storage / name / "config.yaml"
    if not path.is_file():
        known = sorted(entry.parent.name for entry in storage.glob("*/config.yaml"))
        raise ConfigError(
            f"--resume {name}: no such run in {storage}; there are: {', '.join(known) or 'none'}"
        )
    resolved = load_resolved(path.read_text())
    origins = path.with_name("origins.json")
    if origins.is_file():
        return Resolved(resolved.config, json.loads(origins.read_text()))
    return resolved


def _train_here(
    resolved: Resolved, run: RunFolder, progress: Callable[[str], None], tags: dict[str, str]
) -> None:
    try:
        run_worker(resolved, run.path, OneWorker(), progress, tags)
    except ConfigError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise TrainingFailedError(f"{run.path.name}: {error}") from error


def run_worker(
    resolved: Resolved,
    folder: Path,
    group: WorkerGroup,
    progress: Callable[[str], None] | None,
    tags: Mapping[str, str],
) -> None:
    """One worker's whole work: train, load the best, score test, write the result.

    Args:
        resolved: The experiment.
        folder: The run's folder.
        group: The workers.
        progress: Takes a line for a person; None on ranks other than 0.
        tags: Further tags for the tracker.
    """
    run = RunFolder(folder)
    journal = sender = None
    if group.rank == 0:
        run.claim()
    group.agree(run.attempt)
    try:
        if group.rank == 0:
            journal, sender = open_journal(resolved, run, group.size, tags)
        training = Training(
            resolved.config, run, group=group, recorder=journal, progress=progress
        )
        if journal is not None:
            journal.tags({"data_digest": training.dataset.digest})
            for split in training.dataset.splits:
                journal.dataset(
                    training.dataset.label_space.name,
                    training.dataset.digest,
                    split,
                    resolved.config.data.path,
                )
        for _ in training.evaluations():
            pass
        _finish(training, resolved, run, journal)
        if journal is not None:
            journal.finish("FINISHED")
    except BaseException:
        if journal is not None:
            journal.finish("FAILED")
        raise
    finally:
        if journal is not None:
            journal.sync()
        if sender is not None:
            sender.stop(timeout=30)


def open_journal(
    resolved: Resolved,
    run: RunFolder,
    world_size: int,
    tags: Mapping[str, str],
    parent: str | None = None,
) -> tuple[Journal, Any]:
    """The run's journal, and the thread that sends it to MLflow (None where MLflow is absent).

    Args:
        resolved: The experiment; its values become parameters and tags.
        run: The run's folder.
        world_size: Number of workers.
        tags: Further tags.
        parent: Journal id of the run that this one is a child of.
    """
    config = resolved.config
    journal = Journal(
        run.path / "journal",
        run_name=run.path.name,
        tags={
            **run_tags(config, world_size=world_size, attempt=run.attempt),
            "mlflow.note.content": run_description(resolved),
            **tags,
        },
        params={key: str(value) for key, value in flat(config).items()},
        parent=parent,
    )
    journal.text("config.yaml", dump(config))
    journal.text("origins.json", json.dumps(resolved.origins, indent=1))
    try:
        from ..tracking import Sender, tracking_uri

        sender = Sender(
            journal.folder, tracking_uri(run.path.parent), config.tracking.experiment
        )
        sender.start()
    except ImportError as error:
        _log.warning("not sent to MLflow, which cannot be imported here: %s", error)
        return journal, None
    return journal, sender


def _finish(
    training: Training, resolved: Resolved, run: RunFolder, journal: Journal | None
) -> None:
    """Score the chosen checkpoint on test, draw, write the result."""
    last = training.history[-1].step
    best = training.load_best()
    metrics = dict(best.metrics)
    split = "val"
    if resolved.config.trainer.test and training.dataset.splits.get("test"):
        split = "test"
    scores, counts = training.score(split)
    metrics.update(scores)
    table = class_table(training.dataset.label_space.classes, counts)
    if journal is None:
        return
    (run.path / "figures").mkdir(exist_ok=True)
    sheet = training.contact_sheet(split)
    (run.path / "figures" / "contact_sheet.png").write_bytes(sheet)
    curves = figures.curves(_curves(training.history))
    (run.path / "figures" / "curves.png").write_bytes(curves)
    journal.metrics(last, {key: value for key, value in scores.items() if split == "test"})
    journal.image(f"{split}_best", last, sheet)
    journal.artifact("figures/curves.png", run.path / "figures" / "curves.png")
    journal.text(f"tables/{split}_classes.json", json.dumps(table, indent=1))
    result = {
        "best_step": best.step,
        "metrics": metrics,
        "split": split,
        "classes": table,
        "confusion": counts.tolist(),
    }
    run.check_owner()
    run.write("result.json", json.dumps(result, indent=1))


def _curves(history: list[Evaluation]) -> dict[str, list[tuple[int, float]]]:
    names = list(history[-1].metrics)
    return {
        name: [(item.step, item.metrics[name]) for item in history if name in item.metrics]
        for name in names
    }


def _outcome(run: RunFolder, storage: Path) -> TrainOutcome:
    result = json.loads((run.path / "result.json").read_text())
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage / 'mlflow.db'}"
    return TrainOutcome(
        name=run.path.name,
        folder=run.path,
        best_step=result["best_step"],
        metrics=result["metrics"],
        classes=result["classes"],
        split=result["split"],
        contact_sheet=run.path / "figures" / "contact_sheet.png",
        tracking_uri=uri,
    )


def _train_on_ray(
    resolved: Resolved, run: RunFolder, progress: Callable[[str], None], tags: dict[str, str]
) -> None:
    # Ray is imported only where it is used: without it, `trainer.workers: 0` must still work.
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from ..cluster import connected

    trainer = resolved.config.trainer
    use_gpu = choose_device(trainer.device).type == "cuda"
    with connected(cpus=trainer.workers), _followed(run.path / _PROGRESS, progress):
        progress(f"{run.path.name}: starting {trainer.workers} Ray Train workers")
        TorchTrainer(
            ray_worker,
            train_loop_config={
                "config": dump(resolved.config),
                "origins": resolved.origins,
                "folder": str(run.path),
                "tags": tags,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=trainer.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": 1},
            ),
            run_config=RunConfig(
                name=f"ray-{run.path.name}-{time.time_ns()}",
                storage_path=str(run.path / "ray"),
                failure_config=FailureConfig(max_failures=trainer.max_failures),
            ),
        ).fit()
    failure = run.path / "failure.json"
    if failure.is_file():
        raise TrainingFailedError(f"{run.path.name}: {json.loads(failure.read_text())['error']}")
    if not (run.path / "result.json").is_file():
        raise TrainingFailedError(f"{run.path.name}: the workers ended without a result")


def ray_worker(given: dict[str, Any]) -> None:
    """What each Ray Train worker runs; failures that another attempt would repeat are data."""
    folder = Path(given["folder"])
    group = ProcessGroup()
    resolved = Resolved(load_resolved(given["config"]).config, given["origins"])
    progress = None
    if group.rank == 0:
        log = (folder / _PROGRESS).open("a", buffering=1)
        progress = lambda line: print(line, file=log, flush=True)  # noqa: E731
    try:
        run_worker(resolved, folder, group, progress, given["tags"])
    except Exception as error:
        if decide(error) is Decision.RETRY:
            raise
        text = json.dumps({"error": f"{type(error).__name__}: {error}", "rank": group.rank})
        RunFolder(folder).write("failure.json", text)


class _followed:
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
