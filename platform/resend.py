"""Send by hand what the folder of a run, a trial or a sweep holds and MLflow lacks."""

from collections.abc import Iterator
from pathlib import Path

from .address import tracking_uri, without_user
from .config import load_resolved
from .tracking import sync


def resend(folder: Path, experiment: str | None = None) -> Iterator[tuple[Path, str, str]]:
    """Send a run's journal; of a sweep its own first, then its trials'.

    Args:
        folder: Of a run, a trial or a sweep.
        experiment: MLflow experiment; the configuration's own if not given.

    Yields:
        Folder, id of its run in MLflow, and MLflow's address.

    Raises:
        ValueError: Where there is no journal.
        RuntimeError: Where MLflow is out of reach.
    """
    folder = folder.absolute()
    trials = sorted((folder / "trials").glob("*/journal"), key=lambda path: int(path.parent.name))
    journals = [path for path in (folder / "journal", *trials) if path.is_dir()]
    if not journals:
        raise ValueError(f"{folder}: no journal there; give the folder of a run or a sweep")
    # A trial lies in SWEEP/trials/NUMBER, and shares the sweep's storage.
    storage = folder.parents[2] if folder.parent.name == "trials" else folder.parent
    uri = tracking_uri(storage)
    for journal in journals:
        name = experiment or _experiment([journal.parent, *(path.parent for path in trials)])
        yield journal.parent, sync(journal, uri, name), without_user(uri)


def _experiment(folders: list[Path]) -> str:
    """Of the first folder that has a configuration: a sweep's own has none."""
    for folder in folders:
        if (folder / "config.yaml").is_file():
            text = (folder / "config.yaml").read_text()
            return load_resolved(text).config.tracking.experiment
    raise ValueError(f"{folders[0]}: holds no config.yaml; name the experiment: --experiment NAME")
