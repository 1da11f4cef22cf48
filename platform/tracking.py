"""The only file that talks to MLflow: replays a journal into a run, as often as it takes."""

import contextlib
import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .address import without_user
from .image_grid import grid_files
from .journal import file_of, read_records
from .sent_offset import SentOffset, write_whole

_log = logging.getLogger(__name__)

JOURNAL_TAG = "spikeseg.journal"
PARENT_TAG = "spikeseg.parent_journal"
_LOCK = "sender.lock"
_DEAD_LETTERS = "dead_letters.jsonl"
_BATCH = 500
_REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_QUIET = {
    RETRIES: "0",
    TIMEOUT: "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "DO_NOT_TRACK": "true",
}

Record = dict[str, Any]


class RunDeletedError(RuntimeError):
    """Somebody deleted the journal's run, or its experiment; it is not made again behind them."""


def sync(journal: Path, uri: str, experiment: str) -> str:
    """Send everything that a journal holds and MLflow lacks.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.

    Returns:
        The run's id.

    Raises:
        RunDeletedError: Where the run was deleted in MLflow.
        RuntimeError: Where MLflow is out of reach; nothing is lost then.
    """
    with reachable(uri), alone(journal):
        return Replay(journal, uri, experiment).send()


@contextlib.contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into one sentence with its address.

    Raises:
        RuntimeError: Where MLflow raised.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RuntimeError(f"MLflow at {without_user(uri)} is out of reach: {error}") from error


@contextlib.contextmanager
def alone(journal: Path) -> Iterator[None]:
    """One sender at a time; two would only do the same work twice."""
    with (journal / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def connect(uri: str) -> Any:
    """MLflow's client, told to give up quickly and to report nothing to its makers."""
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    # Whoever sends tries again by itself, after a look at what arrived: a client that repeats a
    # request below that could make a second run.
    os.environ[RETRIES] = "0"
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


class Replay:
    """Sends a journal from where it was left; after an error it is thrown away and made anew.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.
    """

    def __init__(self, journal: Path, uri: str, experiment: str) -> None:
        self._journal = journal
        self._client = connect(uri)
        self._uri = uri
        self._experiment_name = experiment
        self._sent = SentOffset(journal, uri)
        self._read_to = 0
        self._seen: set[tuple[str, str, int]] = set()
        self._run_id = self._sent.run_id
        self._known = False

    def send(self) -> str:
        """Send, batch by batch; the offset is written after each."""
        if self._run_id and not self._known:
            self._forget_a_lost_run()
        batch: list[Record] = []
        for record in read_records(self._journal, self._read_to):
            self._read_to = record["end"]
            fresh = self._first_only(record)
            if record["end"] <= self._sent.offset:
                continue
            if record["kind"] == "run" and not self._run_id:
                self._run_id = self._find_or_create(record)
            batch.append(fresh)
            if len(batch) >= _BATCH:
                self._deliver(batch)
                batch = []
        if batch:
            self._deliver(batch)
        if not self._run_id:
            raise RuntimeError(f"{self._journal}: holds no run record")
        return self._run_id

    def experiment_sent_to(self) -> str | None:
        """Name of the experiment that holds the run; None where nothing was sent."""
        if self._run_id:
            self._forget_a_lost_run()
        if not self._run_id:
            return None
        identity = self._client.get_run(self._run_id).info.experiment_id
        return self._client.get_experiment(identity).name

    def send_set_aside(self) -> int:
        """Try the files among what was set aside once more: a mount may be back.

        Returns:
            How many records stay set aside.
        """
        letters = self._journal / _DEAD_LETTERS
        if not letters.exists():
            return 0
        # A journal that was sent twice, to two databases, may name a record twice.
        lines = dict.fromkeys(letters.read_text().splitlines())
        kept = [line for line in lines if not self._sent_now(json.loads(line)["record"])]
        write_whole(letters, "".join(f"{line}\n" for line in kept))
        return len(kept)

    def _sent_now(self, record: Record) -> bool:
        """Whether a record that was set aside could be sent; only a file's reason can go away."""
        from mlflow.exceptions import MlflowException

        if "path" not in record:
            return False
        try:
            self._send_file(record)
        except FileNotFoundError:
            return False
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            return False
        return True

    def _forget_a_lost_run(self) -> None:
        """Start from the journal's beginning where the database is another one by now."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(self._run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._sent.forget()
            self._run_id = ""
        self._known = True

    def _first_only(self, record: Record) -> Record:
        """The record without what an earlier one holds (an orphaned writer may have doubled it)."""
        step = record.get("step", 0)
        if record["kind"] == "metrics":
            values = {k: v for k, v in record["values"].items() if ("m", k, step) not in self._seen}
            self._seen.update(("m", key, step) for key in values)
            return {**record, "values": values}
        if record["kind"] == "image":
            place = ("i", record["name"], step)
            if place in self._seen:
                return {"kind": "doubled", "end": record["end"]}
            self._seen.add(place)
        return record

    def _deliver(self, batch: Sequence[Record]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client, run_id = self._client, self._run_id
        metrics: list[Metric] = []
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        for record in batch:
            if record["kind"] == "metrics":
                time, step = record["time"], record["step"]
                metrics += [Metric(k, v, time, step) for k, v in record["values"].items()]
            elif record["kind"] == "params":
                params.update(record["values"])
            elif record["kind"] == "tags":
                tags.update(record["values"])
            elif record["kind"] == "image":
                tags["mlflow.loggedImages"] = "true"
        self._in_parts(metrics, _BATCH, lambda part: client.log_batch(run_id, metrics=part))
        entries = [RunTag(key, str(value)[:5000]) for key, value in tags.items()]
        self._in_parts(entries, 90, lambda part: client.log_batch(run_id, tags=part))
        given = [Param(key, str(value)[:6000]) for key, value in params.items()]
        self._in_parts(given, 90, lambda part: client.log_batch(run_id, params=part))
        self._in_parts(
            [r for r in batch if r["kind"] == "dataset"],
            50,
            lambda part: client.log_inputs(run_id, [_dataset_input(r) for r in part]),
        )
        latest = {r["path"]: r for r in batch if r["kind"] in ("file", "link", "image")}
        self._in_parts(list(latest.values()), 1, lambda part: self._send_file(part[0]))
        self._send_status([r for r in batch if r["kind"] in ("run", "status")])
        self._sent.write(batch[-1]["end"], self._run_id)

    def _in_parts(
        self, items: Sequence[Any], size: int, call: Callable[[Sequence[Any]], object]
    ) -> None:
        """Make calls of limited size; what MLflow refuses for good is set aside, one by one."""
        from mlflow.exceptions import MlflowException

        for start in range(0, len(items), size):
            part = items[start : start + size]
            try:
                call(part)
            except MlflowException as error:
                if error.error_code not in _REFUSED:
                    raise
                self._check_alive()
                if len(part) > 1:
                    self._in_parts(part, (len(part) + 1) // 2, call)
                else:
                    self._set_aside(part[0], error)
            except FileNotFoundError as error:
                self._set_aside(part[0], error)

    def _set_aside(self, item: Any, error: Exception) -> None:
        text = item if isinstance(item, dict) else dict(item)
        with (self._journal / _DEAD_LETTERS).open("a") as file:
            file.write(json.dumps({"record": text, "error": str(error)}) + "\n")
        _log.warning("%s: MLflow refused a record: %s: %s", self._journal, text, error)

    def _check_alive(self) -> None:
        if self._client.get_run(self._run_id).info.lifecycle_stage == "deleted":
            raise RunDeletedError(
                f"{self._journal}: run {self._run_id} was deleted in MLflow; "
                "restore it there to send more"
            )

    def _send_file(self, record: Record) -> None:
        path, client = record["path"], self._client
        if record["kind"] == "image":
            with tempfile.TemporaryDirectory() as folder:
                for file in grid_files(record, file_of(self._journal, path), Path(folder)):
                    client.log_artifact(self._run_id, str(file), "images")
            return
        parent = str(Path(path).parent)
        place = None if parent == "." else parent
        if record["kind"] == "file":
            client.log_artifact(self._run_id, str(file_of(self._journal, path)), place)
            return
        # Relative to the run's folder, which may have been moved since.
        source = self._journal.parent / record["source"]
        if source.name != Path(path).name or not source.is_file():
            raise FileNotFoundError(f"{source}: gone, or not named as artifact {path}")
        client.log_artifact(self._run_id, str(source), place)

    def _send_status(self, records: Sequence[Record]) -> None:
        if not records:
            return
        if records[-1]["kind"] == "status":
            self._client.set_terminated(self._run_id, records[-1]["status"], records[-1]["time"])
            self._delete_twins()
        else:
            self._client.update_run(self._run_id, status="RUNNING")

    def _delete_twins(self) -> None:
        """Delete empty runs of this journal: a request given up may have made one all the same."""
        run = self._client.get_run(self._run_id)
        mine = f"tags.`{JOURNAL_TAG}` = '{run.data.tags[JOURNAL_TAG]}'"
        for twin in self._client.search_runs([run.info.experiment_id], mine):
            if twin.info.run_id != self._run_id and not twin.data.params:
                self._client.delete_run(twin.info.run_id)

    def _find_or_create(self, record: Record) -> str:
        """The run of this journal: searched by tag first, since creating it twice would double."""
        experiment = self._client.get_experiment_by_name(self._experiment_name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise RunDeletedError(
                f"{self._journal}: experiment {self._experiment_name} was deleted in MLflow; "
                "restore it there to send more"
            )
        identity = self._create_experiment() if experiment is None else experiment.experiment_id
        found = self._search(identity, record["id"])
        if found is not None:
            self._run_id = found
            self._check_alive()
            self._see_what_is_there(found)
            return found
        tags = {JOURNAL_TAG: record["id"], "mlflow.runName": record["name"]}
        if record["parent"]:
            tags[PARENT_TAG] = record["parent"]
            parent = self._search(identity, record["parent"])
            if parent is not None:
                tags["mlflow.parentRunId"] = parent
        run = self._client.create_run(identity, start_time=record["time"], tags=tags)
        return run.info.run_id

    def _search(self, experiment: str, journal: str) -> str | None:
        from mlflow.entities import ViewType

        found = self._client.search_runs(
            [experiment], f"tags.`{JOURNAL_TAG}` = '{journal}'", ViewType.ALL
        )
        # A deleted one counts only alone: it may be an empty twin.
        found = sorted(found, key=lambda run: run.info.lifecycle_stage)
        return found[0].info.run_id if found else None

    def _see_what_is_there(self, run_id: str) -> None:
        """MLflow may hold records that a lost machine sent and could not keep: those stay."""
        for key in self._client.get_run(run_id).data.metrics:
            history = self._client.get_metric_history(run_id, key)
            self._seen.update(("m", key, point.step) for point in history)
        for file in self._client.list_artifacts(run_id, "images"):
            name, _, rest = Path(file.path).name.partition("+step+")
            if "+compressed" in rest:
                self._seen.add(("i", name.replace("~", "/"), int(rest.partition("+")[0])))

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


def _dataset_input(record: Record) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": record["source"]})
    dataset = Dataset(
        name=record["name"], digest=record["digest"], source_type="local", source=source
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", record["context"])])
