"""Checks of where results go: storage, room on the disk, locks, mirror, first weights."""

import os
import tempfile
import uuid
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...datasets.packed.files import hold_lock, write_file
from ..checkpoint.mirror import check_mirror
from ..config.errors import ConfigError
from ..config.schema import ExperimentConfig
from .findings import Finding, fail, format_bytes, ok, skipped, warn
from .subject import Subject

_NONE = "no recipe was named"
# Measured on journals of trainings: a line of progress with its metrics, a set of pictures.
_LINE_BYTES, _PICTURE_BYTES = 2_000, 400_000
# What an evaluation writes beside them: confusion, charts.
_EVALUATION_BYTES = 300_000
_LEAST_INODES = 2_000


def check_storage(subject: Subject) -> Finding:
    """The storage's folder is there, or can be made, and can be written."""
    remedy = "give --storage a folder of yours, or set SPIKESEG_STORAGE"
    try:
        subject.storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=subject.storage):
            pass
    except OSError as error:
        return fail(f"{subject.storage}: cannot be written ({error.strerror})", remedy)
    return ok(f"{subject.storage}: writable")


def check_file_system(subject: Subject) -> Finding:
    """Locks and whole renames, which runs rest on, work on the storage's file system."""
    probe = subject.storage / f".doctor-{uuid.uuid4().hex}"
    try:
        with hold_lock(probe.with_suffix(".lock"), wait=False):
            write_file(probe, "first")
            write_file(probe, "second")
            if probe.read_text() != "second":
                return fail(
                    f"{subject.storage}: a renamed file shows old content",
                    "take a local disk, NFS or Lustre",
                )
    except OSError as error:
        return fail(
            f"{subject.storage}: no locks or renames ({error})", "take a local disk, NFS or Lustre"
        )
    finally:
        for path in (probe, probe.with_suffix(".lock")):
            path.unlink(missing_ok=True)
    return ok("locks and renames work")


def check_disk(subject: Subject) -> Finding:
    """The disk has room for checkpoints, journal, pictures and kept trials."""
    free = subject.free_disk.free
    if subject.config is None or subject.parameters is None:
        return ok(f"{format_bytes(free)} free") if free > 10**9 else _warn_little(free)
    needed = estimate_disk(subject)
    seen = f"some {format_bytes(needed)} are written, {format_bytes(free)} are free"
    remedy = (
        "free room, give another --storage, or keep less: trainer.keep_checkpoints, "
        "trainer.keep_every, fewer trials"
    )
    if needed > free:
        return fail(seen, remedy)
    return warn(seen, remedy) if needed > 0.8 * free else ok(seen)


def _warn_little(free: int) -> Finding:
    return warn(f"{format_bytes(free)} free", "free room, or give another --storage")


def estimate_disk(subject: Subject) -> int:
    """Bytes that the training, or all trials of the sweep, leave in the storage."""
    assert subject.largest is not None
    one = _estimate_run(subject.largest.config, subject.parameters or 0)
    return one * (1 if subject.plan is None else subject.plan.trials)


def estimate_checkpoint(config: ExperimentConfig, parameters: int) -> int:
    """Bytes of a checkpoint: weights, two moments, the average."""
    copies = 3 + (config.trainer.ema_decay is not None)
    return parameters * 4 * copies


def _estimate_run(config: ExperimentConfig, parameters: int) -> int:
    trainer = config.trainer
    # The newest, the best, and one that is being written.
    kept = trainer.keep_checkpoints + 2
    if trainer.keep_every is not None:
        kept += trainer.max_steps // trainer.keep_every
    evaluations = -(-trainer.max_steps // trainer.evaluate_every)
    kept = min(kept, evaluations + 1) if trainer.checkpoint_every is None else kept
    lines = trainer.max_steps // trainer.log_every
    pictures = evaluations * config.tracking.images
    return (
        kept * estimate_checkpoint(config, parameters)
        + lines * _LINE_BYTES
        + evaluations * _EVALUATION_BYTES
        + pictures * _PICTURE_BYTES
    )


def check_inodes(subject: Subject) -> Finding:
    """The file system can take as many files as runs consist of."""
    folder = subject.storage
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    status = os.statvfs(folder)
    if status.f_files == 0:
        return skipped("this file system counts no files")
    needed = _LEAST_INODES + 100 * (1 if subject.plan is None else subject.plan.trials)
    seen = f"{status.f_favail} more files can be made, some {needed} are needed"
    remedy = "remove files there, or give another --storage"
    return fail(seen, remedy) if status.f_favail < needed else ok(seen)


def check_mirror_address(subject: Subject) -> Finding:
    """The mirror's address can be written to, and has room where it is a folder."""
    if subject.config is None:
        return skipped(_NONE)
    mirror = subject.config.trainer.mirror
    if mirror is None:
        return skipped("trainer.mirror is not set")
    try:
        check_mirror(mirror)
    except ValueError as error:
        return fail(f"trainer.mirror: {error}", "see address, region and credentials of the store")
    parts = urlsplit(mirror)
    if parts.scheme == "file":
        status = os.statvfs(_existing(Path(unquote(parts.path))))
        free, needed = status.f_bavail * status.f_frsize, estimate_disk(subject)
        if needed > free:
            return fail(
                f"trainer.mirror: {format_bytes(free)} free, some {format_bytes(needed)} needed",
                "free room, or give another address",
            )
    return ok("trainer.mirror: writable")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def check_initial_weights(subject: Subject) -> Finding:
    """Weights that `init` names are there and fit the network."""
    if subject.config is None or subject.parameters is None:
        return skipped(_NONE)
    if subject.config.init.backbone is None and subject.config.init.segmentor is None:
        return skipped("init names no weights")
    import torch

    from ...model.segmentor import build_uncalibrated_segmentor
    from ..train.preparation import load_initial_weights

    with torch.device("meta"):
        model = build_uncalibrated_segmentor(subject.config.model)
    try:
        report = load_initial_weights(model, subject.config)
    except (ConfigError, OSError, RuntimeError) as error:
        return fail(str(error), "name the file that the recipe's comment names, or init=null")
    return ok(f"init: {report.numbers if report else 'fits'}")
