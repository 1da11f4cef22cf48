"""The only file that talks to MLflow: replays a journal into a run, as often as it takes."""

import fcntl
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from .journal import file_of, read_records

_log = logging.getLogger(__name__)

JOURNAL_TAG = "spikeseg.journal"
PARENT_TAG = "spikeseg.parent_journal"
_SENT = "sent.json"
_LOCK = "sender.lock"
_DEAD_LETTERS = "dead_letters.jsonl"
_BATCH = 500
_POLL_SECONDS = 1.0
_QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def tracking_uri(storage: Path) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, else sqlite in the storage folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage.absolute() / 'mlflow.db'}"


class Sender:
    """A thread that brings a journal to MLflow and outlives any outage.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.

    Raises:
        ImportError: Where MLflow is not installed.
    """

    def __init__(self, journal: Path, uri: str, experiment: str) -> None:
        # Only whether it is there: the store itself may be out of reach now, and is tried later.
        import mlflow  # noqa: F401

        self._journal = journal
        self._uri = uri
        self._experiment = experiment
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="mlflow-sender")

    def start(self) -> None:
        """Begin sending."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Send what is left, for so many seconds at most; the rest stays in the journal."""
        self._stop.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning(
                "%s: not everything reached %s; send the rest with: spikeseg track sync %s",
                self._journal,
                self._uri,
                self._journal.parent,
            )

    def _run(self) -> None:
        told = False
        while True:
            last = self._stop.is_set()
            try:
                sync(self._journal, self._uri, self._experiment)
                told = False
            except Exception as error:  # A tracker must never end a training.
                if not told:
                    _log.warning("%s: MLflow is out of reach, will retry: %s", self._uri, error)
                    told = True
            if last:
                return
            self._stop.wait(_POLL_SECONDS)


def sync(journal: Path, uri: str, experiment: str) -> str:
    """Send everything that a journal holds and MLflow lacks.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.

    Returns:
        The run's id.

    Raises:
        Exception: MLflow's own, where it is out of reach; nothing is lost then.
    """
    with (journal / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _Replay(journal, uri, experiment).send()


def _client(uri: str) -> Any:
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


class _Replay:
    """One pass over the part of a journal that was not sent yet."""

    def __init__(self, journal: Path, uri: str, experiment: str) -> None:
        self._journal = journal
        self._client = _client(uri)
        self._uri = uri
        self._experiment_name = experiment
        self._state = self._read_state()

    def send(self) -> str:
        """Send, batch by batch; the offset is written after each."""
        run_id: str | None = self._state.get("run_id")
        batch: list[dict[str, Any]] = []
        for record in read_records(self._journal, self._state["offset"]):
            if record["kind"] == "run" and run_id is None:
                run_id = self._find_or_create(record)
                self._state["run_id"] = run_id
            batch.append(record)
            if len(batch) >= _BATCH:
                self._deliver(run_id, batch)
                batch = []
        if batch:
            self._deliver(run_id, batch)
        if run_id is None:
            raise RuntimeError(f"{self._journal}: holds no run record")
        return run_id

    def _deliver(self, run_id: str | None, batch: list[dict[str, Any]]) -> None:
        assert run_id is not None, "the first record of a journal names its run"
        from mlflow.entities import Metric, Param, RunTag

        metrics, params, tags = [], {}, {}
        for record in batch:
            kind = record["kind"]
            if kind == "metrics":
                metrics += [
                    Metric(key, value, record["time"], record["step"])
                    for key, value in record["values"].items()
                ]
            elif kind == "params":
                params.update(record["values"])
            elif kind == "tags":
                tags.update(record["values"])
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        entries = [RunTag(key, str(value)[:5000]) for key, value in tags.items()]
        for start in range(0, len(entries), 90):
            self._client.log_batch(run_id, tags=entries[start : start + 90])
        for start in range(0, len(params), 90):
            part = list(params.items())[start : start + 90]
            self._permanent(
                {"kind": "params", "values": dict(part)},
                lambda part=part: self._client.log_batch(
                    run_id, params=[Param(key, str(value)[:6000]) for key, value in part]
                ),
            )
        for path in dict.fromkeys(r["path"] for r in batch if r["kind"] == "file"):
            local = file_of(self._journal, path)
            folder = str(Path(path).parent)
            self._client.log_artifact(run_id, str(local), None if folder == "." else folder)
        self._send_datasets(run_id, [r for r in batch if r["kind"] == "dataset"])
        for record in batch:
            if record["kind"] == "status":
                self._client.set_terminated(run_id, record["status"], record["time"])
            elif record["kind"] == "run" and record["end"] > self._state["offset"]:
                self._client.update_run(run_id, status="RUNNING")
        if batch[-1]["kind"] == "status":
            last = batch[-1]
            self._client.set_terminated(run_id, last["status"], last["time"])
        self._state["offset"] = batch[-1]["end"]
        self._write_state()

    def _send_datasets(self, run_id: str, records: list[dict[str, Any]]) -> None:
        if not records:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=record["name"],
                    digest=record["digest"],
                    source_type="local",
                    source=json.dumps({"uri": record["source"]}),
                ),
                [InputTag("mlflow.data.context", record["context"])],
            )
            for record in records
        ]
        self._client.log_inputs(run_id, inputs)

    def _permanent(self, record: dict[str, Any], call: Any) -> None:
        """Make a call; what MLflow refuses for good goes to a file instead of being retried."""
        from mlflow.exceptions import MlflowException

        try:
            call()
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS"):
                raise
            with (self._journal / _DEAD_LETTERS).open("a") as file:
                file.write(json.dumps({"record": record, "error": str(error)}) + "\n")
            _log.warning("%s: MLflow refused a record: %s", self._journal, error)

    def _find_or_create(self, record: dict[str, Any]) -> str:
        """The run of this journal: searched by tag first, since creating it twice would double."""
        experiment = self._client.get_experiment_by_name(self._experiment_name)
        identity = self._create_experiment() if experiment is None else experiment.experiment_id
        found = self._client.search_runs([identity], f"tags.`{JOURNAL_TAG}` = '{record['id']}'")
        if found:
            return found[0].info.run_id
        tags = {JOURNAL_TAG: record["id"], "mlflow.runName": record["name"]}
        if record["parent"]:
            tags[PARENT_TAG] = record["parent"]
            parents = self._client.search_runs(
                [identity], f"tags.`{JOURNAL_TAG}` = '{record['parent']}'"
            )
            if parents:
                tags["mlflow.parentRunId"] = parents[0].info.run_id
        run = self._client.create_run(identity, start_time=record["time"], tags=tags)
        return run.info.run_id

    def _create_experiment(self) -> str:
        location = None
        if self._uri.startswith("sqlite:///"):
            database = Path(self._uri.removeprefix("sqlite:///"))
            location = (database.parent / "artifacts").as_uri()
        from mlflow.exceptions import MlflowException

        try:
            return self._client.create_experiment(self._experiment_name, location)
        except MlflowException:
            # Another run of the same moment may have made it.
            experiment = self._client.get_experiment_by_name(self._experiment_name)
            if experiment is None:
                raise
            return experiment.experiment_id

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads((self._journal / _SENT).read_text())
        except (OSError, ValueError):
            return {"offset": 0, "uri": self._uri}
        # The offset only saves work: for another server the journal is replayed whole.
        return state if state.get("uri") == self._uri else {"offset": 0, "uri": self._uri}

    def _write_state(self) -> None:
        writing = self._journal / f".{_SENT}.writing"
        writing.write_text(json.dumps(self._state))
        writing.replace(self._journal / _SENT)
