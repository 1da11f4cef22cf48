"""The only file that writes to MLflow: uploads a journal into a run, as often as it takes."""

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...config.typed_paths import sqlite_file
from ..artifact_files import send_file
from ..image_names import write_grid_files
from ..journal import FILES
from ..journal_lines import describe_damage
from ..mlflow_client import clear_mlflow_errors, connect
from ..pages.run_page import NOTE, RUN_ID
from ..pages.shared_view import VIEW_TAG, share_view
from ..recorded_files import UnsendableError, named_recorded_file
from .dead_letters import refused, set_aside, try_again, unsendable
from .journal_faults import first_run_record, stored_records
from .models import send_model
from .upload_offset import SentOffset, upload_lock

_log = logging.getLogger(__name__)

JOURNAL_TAG = "spikeseg.journal"
PARENT_TAG = "spikeseg.parent_journal"
_PARENT = "mlflow.parentRunId"
_BATCH = 500
_FIRST = {
    name: position
    for position, name in enumerate(("val/mIoU", "energy/mJ", "test/mIoU", "snn/firing_rate"))
}

Record = dict[str, Any]


class RunDeletedError(RuntimeError):
    """The journal's run, or its experiment, was deleted in MLflow; it is not created again."""


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
        JournalError: Where the journal's own files are at fault.
        RuntimeError: Where MLflow is out of reach; nothing is lost then.
    """
    with clear_mlflow_errors(uri), upload_lock(journal):
        return Uploader(journal, uri, experiment).send()


class Uploader:
    """Uploads a journal from where it was left; after an error, make a new one.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.
        run: The run's folder, from where files are sent; the one that holds the journal if not
            given.

    Attributes:
        damaged: The byte of each damaged line that was read.
        ended: Whether the last record that was read is the run's end.
    """

    def __init__(self, journal: Path, uri: str, experiment: str, run: Path | None = None) -> None:
        self._journal = journal
        self._run_folder = run or journal.parent
        self._client = connect(uri)
        self._uri = uri
        self._experiment_name = experiment
        self._sent = SentOffset(journal, uri)
        self._read_to = 0
        self.damaged: list[int] = []
        self.ended = False
        self._damage_logged = 0
        self._seen: set[tuple[str, str, int]] = set()
        self._run_id = self._sent.run_id
        self._looked_up = self._place_checked = False
        self._experiments: dict[str, Any] = {}

    def send(self) -> str:
        """Upload what the journal has and MLflow lacks, batch by batch.

        Raises:
            RunDeletedError: Where the run was deleted in MLflow.
            JournalError: Where the journal's own files are at fault.
        """
        if not self._looked_up:
            self._find_run()
        if not self._run_id:
            self._run_id = self._create()
            # Behind a connection that often breaks, each search anew could be one too many.
            self._sent.write(self._sent.offset, self._run_id)
        batch: list[Record] = []
        for record in stored_records(self._journal, self._read_to):
            self._read_to = record["end"]
            self.ended = record["kind"] == "status"
            if record["kind"] == "damaged":
                self.damaged.append(record["byte"])
            fresh = self._drop_duplicates(record)
            if record["end"] <= self._sent.offset:
                continue
            batch.append(fresh)
            if len(batch) >= _BATCH:
                self._deliver(batch)
                batch = []
        if batch:
            self._deliver(batch)
        if len(self.damaged) > self._damage_logged:
            self._report_damage()
        if not self._place_checked:
            self._check_experiment()
        return self._run_id

    def experiment_sent_to(self) -> str | None:
        """Name of the experiment that holds the run; None where nothing was sent."""
        if not self._looked_up:
            self._find_run()
        if not self._run_id:
            return None
        identity = self._client.get_run(self._run_id).info.experiment_id
        return self._client.get_experiment(identity).name

    def send_set_aside(self) -> int:
        """Upload files among the dead letters once more: a mount may be back.

        Returns:
            How many records stay set aside.
        """
        return try_again(self._journal, self._send_file)

    def _find_run(self) -> None:
        """Find the journal's run in MLflow, in whatever experiment it is now."""
        from mlflow.exceptions import MlflowException

        run = None
        if self._run_id:
            try:
                run = self._client.get_run(self._run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._sent.forget()
                self._run_id = ""
        if run is None:
            run = self._search_run(first_run_record(self._journal)["id"])
            if run is not None:
                self._run_id = run.info.run_id
                self._read_sent_records(self._run_id)
        if run is not None:
            self._check_alive(run)
            self._link_parent(run)
        self._looked_up = True

    def _report_damage(self) -> None:
        text, self._damage_logged = describe_damage(self.damaged), len(self.damaged)
        _log.warning("%s: damaged lines are not sent: %s", self._journal, text)
        self._client.set_tag(self._run_id, "records_damaged", text)

    def _check_experiment(self) -> None:
        name, self._place_checked = self.experiment_sent_to(), True
        if name != self._experiment_name:
            _log.warning(
                "%s: goes on as run %s of experiment %s, not in %s: a journal has one run",
                self._journal,
                self._run_id,
                name,
                self._experiment_name,
            )

    def _link_parent(self, run: Any) -> None:
        """Set a run's parent where that was not in MLflow yet when the run was created."""
        parent = run.data.tags.get(PARENT_TAG)
        if parent and _PARENT not in run.data.tags:
            parent_run = self._search_run(parent)
            if parent_run is not None:
                self._client.set_tag(self._run_id, _PARENT, parent_run.info.run_id)

    def _drop_duplicates(self, record: Record) -> Record:
        """Drop what an earlier record holds; an orphaned writer may have written it twice."""
        step = record.get("step", 0)
        if record["kind"] == "metrics":
            values = {k: v for k, v in record["values"].items() if ("m", k, step) not in self._seen}
            self._seen.update(("m", key, step) for key in values)
            return {**record, "values": values}
        if record["kind"] == "image":
            key = ("i", record["name"], step)
            if key in self._seen:
                return {"kind": "doubled", "end": record["end"]}
            self._seen.add(key)
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
        # MLflow's page of a run lists metrics as they first came.
        metrics.sort(key=lambda metric: _FIRST.get(metric.key, len(_FIRST)))
        self._call_in_parts(metrics, _BATCH, lambda part: client.log_batch(run_id, metrics=part))
        if NOTE in tags:
            tags[NOTE] = tags[NOTE].replace(RUN_ID, run_id)
        entries = [RunTag(key, str(value)[:5000]) for key, value in tags.items()]
        self._call_in_parts(entries, 90, lambda part: client.log_batch(run_id, tags=part))
        parameters = [Param(key, str(value)[:6000]) for key, value in params.items()]
        self._call_in_parts(parameters, 90, lambda part: client.log_batch(run_id, params=part))
        self._call_in_parts(
            [r for r in batch if r["kind"] == "dataset"],
            50,
            lambda part: client.log_inputs(run_id, [_dataset_input(r) for r in part]),
        )
        if VIEW_TAG in tags:
            identity = client.get_run(run_id).info.experiment_id
            made = first_run_record(self._journal)["time"]
            share_view(client, identity, tags[VIEW_TAG], made)
        latest = {r["path"]: r for r in batch if r["kind"] in ("file", "link", "image")}
        self._call_in_parts(list(latest.values()), 1, lambda part: self._send_file(part[0]))
        models = [r for r in batch if r["kind"] == "model"]
        self._call_in_parts(
            models, 1, lambda part: send_model(client, run_id, part[0], self._run_folder)
        )
        self._send_status([r for r in batch if r["kind"] in ("run", "status")])
        self._sent.write(batch[-1]["end"], self._run_id)

    def _call_in_parts(
        self, items: Sequence[Any], size: int, call: Callable[[Sequence[Any]], object]
    ) -> None:
        """Call with parts of limited size; items that MLflow refuses for good are set aside."""
        for start in range(0, len(items), size):
            part = items[start : start + size]
            try:
                call(part)
            except Exception as error:
                if refused(error):
                    self._check_alive(self._client.get_run(self._run_id))
                elif not unsendable(error):
                    raise
                if len(part) > 1:
                    self._call_in_parts(part, (len(part) + 1) // 2, call)
                else:
                    set_aside(self._journal, dict(part[0]), error)

    def _check_alive(self, run: Any) -> None:
        if run.info.lifecycle_stage == "deleted":
            raise RunDeletedError(
                f"{self._journal}: run {self._run_id} was deleted in MLflow; "
                "restore it there to send more"
            )

    def _send_file(self, record: Record) -> None:
        path, client = record["path"], self._client
        if ".." in Path(path).parts or path.startswith("/"):
            raise UnsendableError(f"artifact path {path!r} must be relative, without ..")
        root, source = self._journal / FILES, path
        if record["kind"] == "link":
            root, source = self._run_folder, self._source_of_link(record)
        with named_recorded_file(root, source, Path(path).name) as file:
            if record["kind"] == "image":
                with tempfile.TemporaryDirectory() as folder:
                    for named in write_grid_files(record, file, Path(folder)):
                        send_file(client, self._run_id, named, "images")
                return
            parent = str(Path(path).parent)
            send_file(client, self._run_id, file, None if parent == "." else parent)

    def _source_of_link(self, record: Record) -> str:
        """Path of a linked file below the run's folder, which may have been moved since."""
        source = Path(record["source"])
        if source.name != Path(record["path"]).name:
            raise UnsendableError(f"{source}: not named as artifact {record['path']}")
        if not source.is_absolute():
            return str(source)
        for root in (self._run_folder.absolute(), self._run_folder.resolve()):
            if source.is_relative_to(root):
                return str(source.relative_to(root))
        raise UnsendableError(f"{source}: not sent, it lies outside of {self._run_folder}")

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

    def _create(self) -> str:
        """Create the journal's run; only called where it has none."""
        record = first_run_record(self._journal)
        # Listed when the run was looked for.
        experiment = self._experiments.get(self._experiment_name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise RunDeletedError(
                f"{self._journal}: experiment {self._experiment_name} was deleted in MLflow; "
                "restore it there to send more"
            )
        identity = self._create_experiment() if experiment is None else experiment.experiment_id
        tags = {JOURNAL_TAG: record["id"], "mlflow.runName": record["name"]}
        if record["parent"]:
            tags[PARENT_TAG] = record["parent"]
            parent = self._search_run(record["parent"])
            if parent is not None:
                tags[_PARENT] = parent.info.run_id
        run = self._client.create_run(identity, start_time=record["time"], tags=tags)
        if not run.info.run_id:
            raise RuntimeError("MLflow's server answered without the id of a new run")
        return run.info.run_id

    def _search_run(self, journal: str) -> Any:
        """Search the run of a journal in all experiments; None where there is none."""
        from mlflow.entities import ViewType

        mine = f"tags.`{JOURNAL_TAG}` = '{journal}'"
        runs: list[Any] = []
        token = None
        while True:
            page = self._client.search_experiments(ViewType.ALL, page_token=token)
            self._experiments.update({experiment.name: experiment for experiment in page})
            identities = [experiment.experiment_id for experiment in page]
            runs += self._client.search_runs(identities, mine, ViewType.ALL)
            token = page.token
            if not token:
                break
        # A deleted one counts only where it is the only one: it may be an empty twin.
        runs.sort(key=lambda run: run.info.lifecycle_stage)
        return runs[0] if runs else None

    def _read_sent_records(self, run_id: str) -> None:
        """Read which records the run has: a lost machine may have sent some that are not here."""
        for key in self._client.get_run(run_id).data.metrics:
            history = self._client.get_metric_history(run_id, key)
            self._seen.update(("m", key, point.step) for point in history)
        for file in self._client.list_artifacts(run_id, "images"):
            name, _, rest = Path(file.path).name.partition("+step+")
            if "+compressed" in rest:
                self._seen.add(("i", name.replace("~", "/"), int(rest.partition("+")[0])))

    def _create_experiment(self) -> str:
        location = None
        database = sqlite_file(self._uri)
        if database is not None:
            location = (database.absolute().parent / "artifacts").as_uri()
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
        name=record["name"],
        digest=record["digest"],
        source_type="local",
        source=source,
        # Journals of an earlier version have none.
        profile=record.get("profile"),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", record["context"])])
