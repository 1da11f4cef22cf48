"""Read a run from MLflow: parameters, tags, metrics and artifacts."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.typed_paths import sqlite_file
from .journal import confined
from .metric_table import separate_energy_series
from .mlflow_client import clear_mlflow_errors, connect
from .tracking_uri import without_user

_DEEPEST_FOLDER = 12
_MOST_ARTIFACTS = 100_000
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class TrackedRun:
    """What MLflow holds of a run.

    Attributes:
        run_id: Its id.
        name: Its name, as somebody gave it.
        status: Such as FINISHED.
        params: Name -> value.
        tags: Name -> value.
        series: Metric -> (step, value), by step; energies of an earlier rule by their own name.
        artifacts: Paths of all artifacts.
    """

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    series: dict[str, list[tuple[int, float]]]
    artifacts: list[str]
    _client: Any

    def read(self, path: str) -> bytes | None:
        """Content of an artifact; None where there is none of this path."""
        if path not in self.artifacts:
            return None
        with tempfile.TemporaryDirectory(prefix="spikeseg-artifact-") as folder:
            confined(Path(folder), path)
            return Path(self._client.download_artifacts(self.run_id, path, folder)).read_bytes()

    def last(self) -> dict[str, float]:
        """Value at the last step of every metric."""
        return {name: points[-1][1] for name, points in self.series.items() if points}


def read_run(uri: str, run_id: str) -> TrackedRun:
    """Read a run.

    Args:
        uri: MLflow's tracking URI.
        run_id: The run's id, 32 hexadecimal digits.

    Raises:
        ValueError: Where the id is not one, or MLflow knows no such run.
        RuntimeError: Where MLflow is out of reach.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(f"run id must be 32 hexadecimal digits, got {run_id!r}")
    shown = without_user(uri)
    database = sqlite_file(uri)
    if database is not None and not database.is_file():
        # MLflow would make a new database there.
        raise ValueError(f"run {run_id}: not known, there is no database at {shown}")
    with clear_mlflow_errors(uri):
        client = connect(uri)
        from mlflow.exceptions import MlflowException

        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ValueError(f"run {run_id}: not known at {shown}") from error
        if run.info.run_id != run_id:
            raise RuntimeError(f"{shown} does not answer as MLflow does: it gave another run")
        series = {
            name: [(p.step, p.value) for p in _by_step(client.get_metric_history(run_id, name))]
            for name in sorted(run.data.metrics)
        }
        artifacts = _paths(client, run_id, None)
    return TrackedRun(
        run_id=run_id,
        name=run.info.run_name or run_id,
        status=run.info.status,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        series=separate_energy_series(series),
        artifacts=artifacts,
        _client=client,
    )


def _by_step(points: list[Any]) -> list[Any]:
    return sorted(points, key=lambda point: (point.step, point.timestamp))


def _paths(client: Any, run_id: str, folder: str | None, depth: int = 0) -> list[str]:
    """Paths of all artifacts; a server may list folders in folders without end."""
    if depth > _DEEPEST_FOLDER:
        raise RuntimeError(f"run {run_id}: artifacts lie deeper than {_DEEPEST_FOLDER} folders")
    paths: list[str] = []
    for entry in client.list_artifacts(run_id, folder):
        paths += _paths(client, run_id, entry.path, depth + 1) if entry.is_dir else [entry.path]
        if len(paths) > _MOST_ARTIFACTS:
            raise RuntimeError(f"run {run_id}: has more than {_MOST_ARTIFACTS} artifacts")
    return paths
