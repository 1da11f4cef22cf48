"""`spikeseg track sync`: send what the folder of a run, a trial or a sweep has and MLflow lacks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...config.recipes import load_resolved
from ..mlflow_client import clear_mlflow_errors
from ..tracking_uri import tracking_uri, without_user
from .upload_offset import upload_lock
from .upload_thread import trial_journals
from .uploader import Uploader


@dataclass(frozen=True)
class Sent:
    """A journal that was sent.

    Attributes:
        folder: Its run's folder.
        run_id: Its run in MLflow.
        address: MLflow's, without user and password.
        set_aside: Records that MLflow does not take, or whose files are gone.
        damaged: Lines of the journal that a disk damaged.
    """

    folder: Path
    run_id: str
    address: str
    set_aside: int
    damaged: int


def resend(folder: Path, experiment: str | None = None) -> Iterator[Sent]:
    """Send a run's journal; of a sweep its own first, then its trials'.

    Args:
        folder: Of a run, a trial or a sweep.
        experiment: MLflow experiment; the configuration's own if not given.

    Raises:
        ValueError: Where there is no journal, or it was sent to another experiment before.
        RuntimeError: Where MLflow is out of reach.
    """
    folder = folder.absolute()
    trials = trial_journals(folder)
    journals = [path for path in (folder / "journal", *trials) if path.is_dir()]
    if not journals:
        raise ValueError(f"{folder}: no journal there; give the folder of a run or a sweep")
    # A trial lies in SWEEP/trials/NUMBER, and shares the sweep's storage.
    storage = folder.parents[2] if folder.parent.name == "trials" else folder.parent
    uri = tracking_uri(storage)
    for journal in journals:
        name = experiment or _experiment([journal.parent, *(path.parent for path in trials)])
        with clear_mlflow_errors(uri), upload_lock(journal):
            uploader = Uploader(journal, uri, name)
            before = uploader.experiment_sent_to()
            if experiment is not None and before not in (None, experiment):
                raise ValueError(
                    f"--experiment {experiment}: {journal.parent} was sent to {before} already"
                )
            run_id = uploader.send()
            set_aside = uploader.send_set_aside()
        yield Sent(journal.parent, run_id, without_user(uri), set_aside, len(uploader.damaged))


def _experiment(folders: list[Path]) -> str:
    """Experiment of the first folder that has a configuration; that of a sweep has none."""
    for folder in folders:
        if (folder / "config.yaml").is_file():
            text = (folder / "config.yaml").read_text()
            return load_resolved(text).config.tracking.experiment
    raise ValueError(f"{folders[0]}: holds no config.yaml; name the experiment: --experiment NAME")
