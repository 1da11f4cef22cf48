"""A sweep's runs written through the platform's own journal and sender, without training."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.config.recipes import load_experiment, override
from spikeseg.platform.figures.contact_sheet import draw_contact_sheet
from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.uploader import sync
from spikeseg.platform.train.tracked_training import make_journal

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
    parent = Journal(folder / "journal", run_name=folder.name, tags={}, params={})
    parent.finish("FINISHED")
    parent_id = sync(parent.folder, uri, experiment)
    trials, scores = [], []
    for number, (timesteps, levels, normalization, mask) in enumerate(_POINTS):
        point = {
            "model.neuron.timesteps": timesteps,
            "model.neuron.levels": levels,
            "model.neuron.normalization": normalization,
            "loss.mask_weight": mask,
        }
        run = RunFolder(folder / "trials" / str(number))
        run.claim()
        tags = {"run_name": f"trial-{number}", "sweep": folder.name, "trial": str(number)}
        resolved = override(base, point, "sweep")
        journal = make_journal(resolved, run, 1, tags, parent=parent.id)
        best = 60 - 30 * math.exp(-timesteps * levels / 3) - abs(mask - 18) / 4
        journal.tags({"data_digest": _DATA_DIGEST})
        for split in ("train", "val", "test"):
            journal.dataset(f"shapes-{split}", _DATA_DIGEST, split, str(storage / "shapes"))
        for step in range(100, 301, 100):
            journal.image("val/rows", step, _sheet(step))
            miou = best * (1 - math.exp(-step / 120))
            journal.metrics(
                step,
                {
                    "train/loss": 60 * math.exp(-step / 200),
                    "val/mIoU": miou,
                    "energy/mJ": 0.37 * timesteps * levels,
                    "best/val_mIoU": miou,
                    "best/step": step,
                },
            )
        journal.finish("FINISHED")
        trials.append(sync(journal.folder, uri, experiment))
        scores.append(best)
        journal.close()
    parent.close()
    return TrackedSweep(storage, experiment, parent_id, trials, trials[scores.index(max(scores))])


def _sheet(step: int) -> bytes:
    """A contact sheet of one generated row, whose prediction gets better with the steps."""
    draw = np.random.default_rng(step)
    image = draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    truth = np.zeros((64, 64), np.uint8)
    truth[16:48, 16:48] = 3
    predicted = np.where(draw.random(truth.shape) < step / 400, truth, 1).astype(np.uint8)
    row = ("val-000000", image, truth, predicted)
    return draw_contact_sheet([row], load_label_space("shapes"), [draw.random((16, 16))])
