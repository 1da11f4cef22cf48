"""One worker's training with all its tracking: run folder, journal, sender, system monitor.

A run and a sweep's trial are trained by the same `tracked_training`. They differ in one thing: a
trial has a parent, and the process of the parent (the sweep's driver) sends the trial's journal and
records how it ended, since it alone knows whether a trial was stopped early.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..checkpoint.checkpoint import Evaluation
from ..checkpoint.mirror import fetch_newest_journal
from ..checkpoint.run_folder import FencedError, RunFolder
from ..cluster.live_metrics import is_in_session
from ..cluster.worker_group import WorkerGroup
from ..config.command_lines import command_line
from ..config.recipes import Resolved, dump, load_resolved
from ..config.schema import ExperimentConfig
from ..evaluation.baselines import baseline_metrics
from ..evaluation.observed_recorder import ObservedRecorder
from ..evaluation.recording import Recorder, contact_sheet, metrics_of_step
from ..evaluation.scores import measure_energy_and_health
from ..tracking.code_state import code_diff
from ..tracking.journal import Journal, file_of
from ..tracking.pages.run_page import (
    NOTE,
    describe_repetition,
    describe_subject,
    show_name,
    source_tags,
    word_of,
    write_note,
)
from ..tracking.pages.run_parameters import changed_fields, run_parameters
from ..tracking.pages.shared_view import request_view
from ..tracking.provenance import provenance, run_tags
from ..tracking.step_trace import StepTrace, TracedSteps
from ..tracking.system_metrics import SystemMonitor
from ..tracking.tracking_uri import tracking_uri
from .failure import PreemptedError
from .faults.preemption import Notice
from .health import wants_first_step
from .loop import Training

if TYPE_CHECKING:
    from ..tracking.upload.upload_thread import Sender

# Longest waits for MLflow: at a training's end, and where a process must go soon.
_SEND_SECONDS = 30.0
_LEAVE_SECONDS = 8.0
LOST = "lost.txt"
"""File in a trial's folder that says which records could not be kept."""

_log = logging.getLogger(__name__)


class TrackedRun(NamedTuple):
    """What is trained, where it lies, and under which names it is tracked.

    Attributes:
        resolved: The experiment.
        folder: The run's folder.
        tags: Further tags for the tracker.
        parent: Journal id of the sweep that this run is a trial of; None for a run of its own.
        tracker: MLflow's address as the driver resolved it; None where nothing of it is sent by
            this process, or the driver's own environment says it.
        profile: Steps that rank 0 traces; None for none.
    """

    resolved: Resolved
    folder: Path
    tags: Mapping[str, str]
    parent: str | None = None
    tracker: str | None = None
    profile: TracedSteps | None = None

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "TrackedRun":
        """Read back what `to_message` made; keys of others are left alone."""
        resolved = Resolved(load_resolved(message["config"]).config, message["origins"])
        folder, tags = Path(message["folder"]), message["tags"]
        profile = message.get("profile")
        return cls(
            *(resolved, folder, tags, message["parent"], message.get("tracker")),
            profile=profile and TracedSteps(*profile),
        )

    def to_message(self) -> dict[str, Any]:
        """Plain values that another process can be sent."""
        return {
            "config": dump(self.resolved.config),
            "origins": self.resolved.origins,
            "folder": str(self.folder),
            "tags": dict(self.tags),
            "parent": self.parent,
            "tracker": self.tracker,
            "profile": self.profile and list(self.profile),
        }


@contextlib.contextmanager
def tracked_training(
    tracked: TrackedRun,
    group: WorkerGroup,
    *,
    progress: Callable[[str], None] | None = None,
    notice: Notice | None = None,
) -> Iterator[tuple[Training, Journal | None]]:
    """Claim the run's folder and open its training; rank 0 keeps the journal while the block runs.

    Args:
        tracked: The run.
        group: The workers.
        progress: Takes a line for a person; None on ranks other than 0.
        notice: Where this process hears that it is to leave; None where nobody tells it.

    Yields:
        The started training, and rank 0's journal.
    """
    run = RunFolder(tracked.folder)
    if group.rank == 0:
        run.claim()
    run.attempt = group.broadcast_json(run.attempt)
    config = tracked.resolved.config
    with contextlib.ExitStack() as opened:
        journal = None
        if group.rank == 0:
            journal = opened.enter_context(_open_journal(tracked, run, group.size))
        recorder: Recorder | None = journal
        if journal is not None and is_in_session():
            label = run.path.name
            if tracked.parent is not None:
                label = f"{run.path.parents[1].name}/{label}"
            images = config.trainer.micro_batch_size * config.trainer.micro_batches
            recorder = ObservedRecorder(journal, label, images=images)
        training = Training(
            config, run, group=group, recorder=recorder, progress=progress, notice=notice
        )
        training.start()
        if journal is not None:
            # A kill between a checkpoint and its record would leave a hole otherwise.
            for past in training.history:
                journal.metrics(past.step, metrics_of_step(past))
        if training.step == 0 and wants_first_step(config):
            _score_untrained(training, journal)
        if journal is not None:
            _record_data(journal, training)
            if training.step == 0 and config.tracking.images:
                # The slider of a run's pictures in MLflow begins here, at the untrained network.
                journal.image("val/rows", 0, contact_sheet(training.evaluated, "val"))
            if tracked.profile is not None:
                _trace_steps(training, tracked.profile, journal, progress or _log.info, opened)
        yield training, journal


def _score_untrained(training: Training, journal: Journal | None) -> None:
    """Score the untrained network as step 0; every rank takes part.

    Curves begin there, a split that cannot be scored says so before hours of training, and MLflow
    lists metrics in the order of their arrival: score and energy stand first.
    """
    metrics, _ = training.score("val")
    if journal is not None:
        _, _, measured = measure_energy_and_health(training.evaluated)
        journal.metrics(0, metrics_of_step(Evaluation(0, {**metrics, **measured})))


def _trace_steps(
    training: Training,
    steps: TracedSteps,
    journal: Journal,
    tell: Callable[[str], None],
    opened: contextlib.ExitStack,
) -> None:
    """Have some of the training's steps traced, and written before the journal is closed."""
    first, last = steps.resolve(training.step, training.config.trainer.max_steps)
    if last <= training.step:
        done = "no step is" if first > last else f"of steps {first} to {last} none is"
        tell(f"no profile: {done} left, {training.step} were done before this start")
        return
    first = max(first, training.step + 1)
    tell(f"steps {first} to {last} will be profiled (--profile-steps FIRST-LAST names others)")
    trace = StepTrace((first, last), training.run.path, journal, tell)
    opened.callback(trace.close)
    training.around_step = trace.around


@contextlib.contextmanager
def _open_journal(tracked: TrackedRun, run: RunFolder, world_size: int) -> Iterator[Journal]:
    """The run's journal: fetched from the mirror where that has more, and monitored.

    A run without a parent also sends it and records how the block ended.
    """
    config = tracked.resolved.config
    if config.trainer.mirror is not None:
        fetch_newest_journal(run, config.trainer.mirror)
    with contextlib.ExitStack() as opened:
        journal = make_journal(
            tracked.resolved, run, world_size, tracked.tags, parent=tracked.parent
        )
        opened.callback(journal.close)
        is_root = tracked.parent is None
        patience = [_SEND_SECONDS]
        if is_root and (sender := start_sender(journal, tracked)):
            opened.callback(lambda: sender.stop(timeout=patience[-1]))
        monitor = SystemMonitor(journal, config.tracking.system_interval)
        monitor.start()
        opened.callback(monitor.stop)
        try:
            yield journal
        except BaseException as error:
            # A run that another process took over has not failed; how a trial failed, its sweep
            # says.
            if isinstance(error, PreemptedError):
                journal.tags({"state": "KILLED"})
                journal.finish("KILLED")
                patience.append(_LEAVE_SECONDS)
            elif is_root and not isinstance(error, FencedError):
                journal.tags({"state": "FAIL"})
                journal.finish("FAILED")
            raise
        monitor.stop()
        if is_root:
            journal.tags({"state": "COMPLETE"})
            journal.finish("FINISHED")
        elif journal.dropped:
            # For the sweep's driver; where the disk is full, this may find no room either.
            with contextlib.suppress(OSError):
                run.write(LOST, f"{journal.dropped} records: {journal.first_drop}")


def make_journal(
    resolved: Resolved,
    run: RunFolder,
    world_size: int,
    tags: Mapping[str, str],
    parent: str | None = None,
) -> Journal:
    """The run's journal, with parameters, tags and configuration recorded.

    Args:
        resolved: The experiment; its values become parameters and tags.
        run: The run's folder.
        world_size: Number of workers.
        tags: Further tags.
        parent: Journal id of the run that this one is a child of.
    """
    config = resolved.config
    in_run = run.path / "journal"
    local = config.tracking.journal
    changed, word = changed_fields(resolved), word_of(run.path)
    about = run_tags(config, world_size=world_size, attempt=run.attempt)
    source = f"spikeseg train {config.name}" if parent is None else "spikeseg sweep"
    subject = describe_subject(config)
    journal = Journal(
        journal_folder(run.path, config),
        mirror=None if local is None else in_run,
        limit=config.tracking.journal_limit_mb * 1_000_000,
        run_name=show_name(config, tags.get("trial")),
        tags={
            **config.tracking.tags,
            **about,
            **source_tags(source, about),
            **(request_view() if parent is None else {}),
            "run": word.word,
            "state": "RUNNING",
            NOTE: write_note(f"{subject}.", describe_repetition(resolved, changed, word), ()),
            **tags,
        },
        params=run_parameters(resolved, changed),
        parent=parent,
    )
    journal.text("config.yaml", dump(config))
    made_of = provenance(resolved, world_size=world_size)
    made_of["starts"] = start_history(journal.folder, made_of["command"], config.trainer.log_every)
    journal.text("provenance.json", json.dumps(made_of, indent=1))
    if config.tracking.code_diff:
        journal.text("code.diff", code_diff())
    return journal


def start_history(journal: Path, command: str, log_every: int) -> list[dict[str, Any]]:
    """Every different start of a run, this one last: its command line and what it logs.

    Args:
        journal: The journal's folder, which has the starts before.
        command: This start's command line.
        log_every: This start's `trainer.log_every`.
    """
    try:
        before = json.loads(file_of(journal, "provenance.json").read_text())["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        before = []
    this = {"command": command, "log_every": log_every}
    return [*before, this] if before[-1:] != [this] else before


def start_sender(journal: Journal, tracked: TrackedRun) -> "Sender | None":
    """Start the thread that sends a journal to MLflow; None, with a warning, without MLflow."""
    folder = tracked.folder
    uri = tracked.tracker or tracking_uri(folder.parent)
    experiment = tracked.resolved.config.tracking.experiment
    try:
        from ..tracking.upload.upload_thread import Sender

        sender = Sender(journal.folder, uri, experiment, folder)
    except Exception as error:  # A tracker must never end a training.
        line = command_line("track", "sync", folder.absolute())
        _log.warning("not sent to MLflow: %s; send it with: %s", error, line)
        return None
    sender.start()
    return sender


def journal_folder(run: Path, config: ExperimentConfig) -> Path:
    """Where a run's journal is written on this machine.

    Args:
        run: The run's folder.
        config: Its configuration.
    """
    local = config.tracking.journal
    return run / "journal" if local is None else Path(local) / _flat_name(run)


def _flat_name(path: Path) -> str:
    """One name per run folder, for journals of many storages in one local folder."""
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]
    return f"{path.name}-{digest}"


def _record_data(journal: Journal, training: Training) -> None:
    """Record what a run reads: digest and baselines, and every split as an input of the run."""
    dataset = training.dataset
    journal.tags({"data_digest": dataset.digest})
    if baselines := baseline_metrics(dataset, "val"):
        journal.metrics(0, baselines)
    for split in dataset.splits:
        # MLflow keeps one input per name and digest, with its first context only.
        name = f"{dataset.label_space.name}-{split}"
        pixels = dataset.class_pixels(split)
        profile = {
            "rows": dataset.splits[split],
            "classes": len(dataset.label_space.classes),
            "pixel_share_percent": {
                label: round(100 * count / max(1, sum(pixels)), 2)
                for label, count in zip(dataset.label_space.classes, pixels, strict=True)
            },
            "data_digest": dataset.digest,
        }
        source = training.config.data.path
        journal.dataset(name, dataset.split_digests[split], split, source, profile)
