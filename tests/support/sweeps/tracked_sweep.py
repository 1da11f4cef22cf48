"""A sweep's runs written through the platform's own journal and sender, without training."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.config.recipes import Resolved, load_experiment, override
from spikeseg.platform.figures.contact_sheet import draw_contact_sheet
from spikeseg.platform.figures.strip import draw_strip, fit_page
from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.tracking.pages.run_page import (
    NOTE,
    SHEET,
    SMALL,
    STRIP,
    TRIAL_PICTURES,
    describe_run,
)
from spikeseg.platform.tracking.pages.shared_view import request_view
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.uploader import sync
from spikeseg.platform.train.tracked_training import make_journal

VARIED = (
    "model.neuron.timesteps",
    "model.neuron.levels",
    "model.neuron.normalization",
    "loss.mask_weight",
)
_POINTS = (
    (1, 4, "levels", 20.0),
    (1, 1, "levels", 10.0),
    (1, 8, "none", 30.0),
    (2, 2, "levels", 15.0),
    (2, 4, "none", 8.0),
    (4, 1, "levels", 25.0),
    (4, 4, "levels", 12.0),
    (2, 8, "levels", 38.0),
)


_DATA_DIGEST = hashlib.sha256(b"shapes").hexdigest()


@dataclass(frozen=True)
class TrackedSweep:
    """What was written.

    Attributes:
        storage: Folder of all runs, with the database.
        experiment: Name of the experiment.
        parent: Run id of the sweep.
        trials: Run id of each trial.
        best: Run id of the trial with the highest val/mIoU.
    """

    storage: Path
    experiment: str
    parent: str
    trials: list[str]
    best: str


def write_sweep(storage: Path) -> TrackedSweep:
    """Record a sweep of eight trials whose curves follow T and D, and send it."""
    uri = tracking_uri(storage)
    base = load_experiment("shapes_tiny", [f"data.path={storage / 'shapes'}"])
    experiment = base.config.tracking.experiment
    folder = storage / "sweep-neuron"
    parent = Journal(folder / "journal", run_name=folder.name, tags={"trials": "8"}, params={})
    parent.tags(request_view("neuron", sweep=folder.name, varied=VARIED))
    parent.finish("FINISHED")
    parent_id = sync(parent.folder, uri, experiment)
    trials, scores = [], []
    for number, (timesteps, levels, normalization, mask) in enumerate(_POINTS):
        point = dict(zip(VARIED, (timesteps, levels, normalization, mask), strict=True))
        run = RunFolder(folder / "trials" / str(number))
        run.claim()
        tags = {"sweep": folder.name, "trial": str(number)}
        resolved = override(base, point, "sweep")
        journal = make_journal(resolved, run, 1, tags, parent=parent.id)
        best = 60 - 30 * math.exp(-timesteps * levels / 3) - abs(mask - 18) / 4
        journal.tags({"data_digest": _DATA_DIGEST})
        for split in ("train", "val", "test"):
            journal.dataset(f"shapes-{split}", _DATA_DIGEST, split, str(storage / "shapes"))
        miou = 0.0
        for step in range(100, 301, 100):
            journal.image("val/rows", step, _sheet(step))
            miou = best * (1 - math.exp(-step / 120))
            journal.metrics(
                step,
                {
                    "train/loss": 60 * math.exp(-step / 200),
                    "val/mIoU": miou,
                    "energy/mJ": 0.37 * timesteps * levels,
                    "snn/firing_rate": levels / 4,
                    "best/val_mIoU": miou,
                    "best/step": step,
                },
            )
        _finish_page(journal, resolved, run.path, miou)
        journal.tags({"state": "COMPLETE"})
        journal.finish("FINISHED")
        trials.append(sync(journal.folder, uri, experiment))
        scores.append(best)
        journal.close()
    parent.close()
    return TrackedSweep(storage, experiment, parent_id, trials, trials[scores.index(max(scores))])


def _finish_page(journal: Journal, resolved: Resolved, folder: Path, miou: float) -> None:
    """What a trial leaves at the top of its page, and its figures."""
    space = load_label_space("shapes")
    classes = [{"class": name, "IoU": miou} for name in space.classes]
    image, truth, predicted = _row(300)
    journal.picture(STRIP, draw_strip((image, truth, predicted), space, classes, [(300, miou)]))
    journal.picture(SHEET, _sheet(300))
    journal.picture(f"{SMALL}/contact_sheet.png", fit_page(_sheet(300)))
    metrics = {"val/mIoU": miou, "energy/mJ": 0.4, "val/baseline_majority": 7.8}
    journal.tags({NOTE: describe_run(resolved, folder, metrics, pictures=TRIAL_PICTURES[:2])})


def _row(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A generated image, its truth, and a prediction that gets better with the steps."""
    draw = np.random.default_rng(step)
    image = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    truth = np.zeros((64, 64), np.uint8)
    truth[16:48, 16:48] = 3
    predicted = np.where(draw.random(truth.shape) < step / 400, truth, 1).astype(np.uint8)
    return image, truth, predicted


def _sheet(step: int) -> bytes:
    """A contact sheet of one generated row."""
    spikes = np.random.default_rng(step).random((16, 16))
    return draw_contact_sheet([("val-000000", *_row(step))], load_label_space("shapes"), [spikes])
