"""`spikeseg track sync`: send what the folder of a run, a trial or a sweep has and MLflow lacks."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...config.recipes import load_resolved
from ..mlflow_client import clear_mlflow_errors
from ..tracking_uri import tracking_uri, without_user
from .journal_faults import JournalError
from .upload_offset import upload_lock
from .upload_thread import OUTAGE
from .uploader import RunDeletedError, Uploader


@dataclass(frozen=True)
class Sent:
    """A journal that was sent, or why it was not.

    Attributes:
        folder: Its run's folder.
        run_id: Its run in MLflow.
        address: MLflow's, without user and password.
        set_aside: Records that MLflow does not take, or whose files are gone.
        damaged: Lines of the journal that a disk damaged.
        fault: Why nothing more of it can be sent; empty where it was sent.
    """

    folder: Path
    run_id: str
    address: str
    set_aside: int
    damaged: int
    fault: str = ""


def resend(folder: Path, experiment: str | None = None) -> Iterator[Sent]:
    """Send a run's journal; of a sweep its own first, then its trials'.

    Each journal stands alone: what is wrong with one is told as its `fault`, and the others are
    sent all the same. Where MLflow takes several in a row not at all, it is out of reach.

    Args:
        folder: Of a run, a trial or a sweep.
        experiment: MLflow experiment; the configuration's own if not given.

    Raises:
        ValueError: Where there is no journal, or it was sent to another experiment before.
        RuntimeError: Where MLflow is out of reach.
    """
    folder = folder.absolute()
    journals = [path for path in (folder / "journal", *_trial_journals(folder)) if path.is_dir()]
    if not journals:
        raise ValueError(f"{folder}: no journal there; give the folder of a run or a sweep")
    # A trial lies in SWEEP/trials/NUMBER, and shares the sweep's storage.
    storage = folder.parents[2] if folder.parent.name == "trials" else folder.parent
    uri = tracking_uri(storage)
    in_a_row = 0
    for journal in journals:
        try:
            name = experiment or _experiment(itertools.chain([journal], journals))
            sent = _send(journal, uri, name, named=experiment is not None)
            in_a_row = 0
        except (JournalError, RuntimeError) as error:
            in_a_row += not isinstance(error, JournalError | RunDeletedError)
            if len(journals) == 1 or in_a_row == OUTAGE:
                raise
            sent = Sent(journal.parent, "", without_user(uri), 0, 0, str(error))
        yield sent


def _send(journal: Path, uri: str, experiment: str, *, named: bool) -> Sent:
    """Send one journal; refused where it was sent to another experiment than the one named."""
    with clear_mlflow_errors(uri), upload_lock(journal):
        uploader = Uploader(journal, uri, experiment)
        before = uploader.experiment_sent_to()
        if named and before not in (None, experiment):
            raise ValueError(
                f"--experiment {experiment}: {journal.parent} was sent to {before} already"
            )
        run_id = uploader.send()
        set_aside = uploader.send_set_aside()
    return Sent(journal.parent, run_id, without_user(uri), set_aside, len(uploader.damaged))


def _trial_journals(folder: Path) -> list[Path]:
    """Journals of the trials of a sweep's folder, by number, those without records too."""
    every = folder.glob("trials/*/journal")
    trials = (p for p in every if p.parent.name.isascii() and p.parent.name.isdecimal())
    return sorted(trials, key=lambda path: int(path.parent.name))


def _experiment(journals: Iterable[Path]) -> str:
    """Experiment of the first folder that has a configuration; that of a sweep has none.

    Raises:
        ValueError: Where no folder has one that can be read.
    """
    first = problem = None
    for journal in journals:
        folder = journal.parent
        first = first or folder
        if (folder / "config.yaml").is_file():
            try:
                text = (folder / "config.yaml").read_text()
                return load_resolved(text).config.tracking.experiment
            except ValueError as error:
                problem = problem or f"{folder / 'config.yaml'}: {error}"
    raise ValueError(
        f"{problem or f'{first}: holds no config.yaml'}; name the experiment: --experiment NAME"
    )
