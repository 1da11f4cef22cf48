"""Files and models for MLflow, also where its store lies on a file system without chmod."""

import errno
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ...datasets.packed.files import write_file


def send_file(client: Any, run_id: str, file: Path, folder: str | None) -> None:
    """Log a file as an artifact of a run.

    Args:
        client: MLflow's client.
        run_id: The run.
        file: Keeps its name.
        folder: Below the run's artifacts; None for their root.
    """
    try:
        client.log_artifact(run_id, str(file), folder)
    except PermissionError as error:
        root = _local_folder(client.get_run(run_id).info.artifact_uri, error)
        _write_content(file, root / (folder or "") / file.name)


def send_model_files(client: Any, model: Any, saved: Path) -> None:
    """Log what MLflow saved of a model as the files of a logged model.

    Args:
        client: MLflow's client.
        model: The logged model.
        saved: Folder with `MLmodel` in it.
    """
    try:
        client.log_model_artifacts(model.model_id, str(saved))
    except PermissionError as error:
        root = _local_folder(model.artifact_location, error)
        for file in filter(Path.is_file, saved.rglob("*")):
            _write_content(file, root / file.relative_to(saved))


def _local_folder(uri: str, error: PermissionError) -> Path:
    """Folder of a local store whose modes may not be set, as MLflow's copies do."""
    parts = urlsplit(uri)
    if error.errno != errno.EPERM or parts.scheme not in ("", "file"):
        raise error
    return Path(unquote(parts.path) if parts.scheme else uri)


def _write_content(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, file.read_bytes())
