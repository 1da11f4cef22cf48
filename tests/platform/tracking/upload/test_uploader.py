"""What a journal holds arrives in MLflow once, whatever breaks between; sqlite directly."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import (
    expected_rows,
    metric_rows,
    open_journal,
    picture,
    run_count,
    write_steps,
)
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from spikeseg.jobs.cli import run
from spikeseg.jobs.track import command
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload import uploader as tracking
from spikeseg.platform.tracking.upload.send_again import resend
from spikeseg.platform.tracking.upload.upload_offset import unsent
from spikeseg.platform.tracking.upload.uploader import RunDeletedError, sync

EXPERIMENT = "outages"


def send(journal: Path, storage: Path) -> str:
    return sync(journal, tracking_uri(storage), EXPERIMENT)


def image_names(storage: Path, run_id: str) -> list[str]:
    found = MlflowClient(tracking_uri(storage)).list_artifacts(run_id, "images")
    return sorted(Path(entry.path).name for entry in found)


def test_a_journal_sent_three_times_leaves_every_record_once(storage: Path) -> None:
    journal = open_journal(storage / "run" / "journal")
    write_steps(journal, range(11))
    journal.text("tables/layers.json", "[]")
    journal.dataset("shapes", "0123456789abcdef" * 4, "val", "data/shapes")
    journal.finish("FINISHED")
    run_id = send(journal.folder, storage)
    for _ in range(2):
        (journal.folder / "sent.json").unlink()
        assert send(journal.folder, storage) == run_id
    assert run_count(storage) == 1
    assert metric_rows(storage, run_id) == expected_rows(range(11))
    assert len(image_names(storage, run_id)) == 2 * 3
    run = MlflowClient(tracking_uri(storage)).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["T"] == "2"
    assert run.data.tags["mlflow.loggedImages"] == "true"
    assert run.inputs is not None
    assert [item.dataset.digest for item in run.inputs.dataset_inputs] == [
        ("0123456789abcdef" * 4)[:36]
    ]


def test_pictures_carry_the_names_that_log_image_gives(storage: Path) -> None:
    import numpy as np

    journal = open_journal(storage / "run" / "journal")
    journal.image("val/sheet", 7, picture(7))
    run_id = send(journal.folder, storage)
    client = MlflowClient(tracking_uri(storage))
    client.log_image(run_id, np.zeros((2, 2, 3), np.uint8), key="val/other", step=7)
    shapes: dict[str, set[tuple[str, ...]]] = {"val~sheet": set(), "val~other": set()}
    for name in image_names(storage, run_id):
        key, *fields = Path(name).stem.split("+")
        assert int(fields[1]) == 7
        assert int(fields[3]) > 1_600_000_000_000
        shapes[key].add((fields[0], fields[2], *fields[5:], Path(name).suffix))
    assert shapes["val~sheet"] == shapes["val~other"]
    assert len(shapes["val~sheet"]) == 2


class CrashError(Exception):
    """Stands for a sender that was killed."""


class CrashingClient:
    """MLflow's client, which dies at its n-th writing call, before or after the work is done."""

    def __init__(self, client: Any, at: int, after: bool) -> None:
        self._client = client
        self._left = at
        self._after = after

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)
        if not name.startswith(("log_", "create_", "set_", "update_")):
            return call

        def crash(*given: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise CrashError
            done = call(*given, **named)
            if self._left == 0:
                raise CrashError
            return done

        return crash


def test_a_sender_killed_at_any_call_loses_and_doubles_nothing(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_BATCH", 8)
    connect = tracking.connect
    calls = 0
    for at in range(1, 100):
        after = at % 2 == 0
        folder = storage / f"run-{at}"
        journal = open_journal(folder / "journal", name=f"run-{at}")
        write_steps(journal, range(6))
        journal.finish("FINISHED")
        monkeypatch.setattr(
            tracking, "connect", lambda uri, a=at, b=after: CrashingClient(connect(uri), a, b)
        )
        try:
            send(journal.folder, storage)
            calls = at - 1
            break
        except CrashError:
            pass
        monkeypatch.setattr(tracking, "connect", connect)
        run_id = send(journal.folder, storage)
        assert metric_rows(storage, run_id) == expected_rows(range(6)), (at, after)
        assert len(image_names(storage, run_id)) == 2 * 2
        assert run_count(storage) == at
    print(f"{calls} calls, each killed once")
    assert calls > 10


def test_a_lost_machine_doubles_nothing_that_it_had_sent_already(storage: Path) -> None:
    mirror = storage / "run" / "journal"
    journal = open_journal(storage / "local", mirror=mirror)
    write_steps(journal, range(6))
    journal.sync()
    write_steps(journal, range(6, 12))
    send(journal.folder, storage)
    shutil.rmtree(journal.folder)

    again = open_journal(storage / "other", mirror=mirror)
    # The times of what is redone differ, and MLflow's key of a metric holds the time.
    write_steps(again, range(6, 16))
    again.close()
    run_id = send(again.folder, storage)

    assert run_count(storage) == 1
    assert metric_rows(storage, run_id) == expected_rows(range(16))
    assert len(image_names(storage, run_id)) == 2 * 4


def test_records_after_a_power_loss_are_sent_though_the_offset_points_behind_them(
    storage: Path,
) -> None:
    journal = open_journal(storage / "run" / "journal")
    write_steps(journal, range(4))
    size = (journal.folder / "records.jsonl").stat().st_size
    write_steps(journal, range(4, 9))
    journal.close()
    send(journal.folder, storage)
    with (journal.folder / "records.jsonl").open("rb+") as file:
        file.truncate(size)
    again = open_journal(journal.folder)
    write_steps(again, range(4, 30))
    run_id = send(again.folder, storage)
    assert metric_rows(storage, run_id) == expected_rows(range(30))


def test_an_orphaned_writer_beside_the_new_one_doubles_nothing(storage: Path) -> None:
    orphan = open_journal(storage / "run" / "journal")
    write_steps(orphan, range(3))
    owner = open_journal(storage / "run" / "journal")
    write_steps(owner, range(6))
    write_steps(orphan, range(8))
    write_steps(owner, range(12))
    run_id = send(owner.folder, storage)
    assert metric_rows(storage, run_id) == expected_rows(range(12))
    assert len(image_names(storage, run_id)) == 2 * 3


def test_what_mlflow_refuses_is_set_aside_and_the_rest_arrives(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(storage / "run" / "journal")
    send(journal.folder, storage)
    journal.params({"no|such*param": "4", "seed": "1"})
    journal.metrics(1, {"val/mIoU": 40.0, "no|such*name": 1.0})
    journal.link(
        "checkpoints/best/model.safetensors", storage / "run" / "gone" / "model.safetensors"
    )
    journal.metrics(2, {"val/mIoU": 41.0})
    run_id = send(journal.folder, storage)
    run = MlflowClient(tracking_uri(storage)).get_run(run_id)
    assert run.data.params == {"model.neuron.timesteps": "2", "seed": "1"}
    assert metric_rows(storage, run_id) == [("val/mIoU", 1, 40.0), ("val/mIoU", 2, 41.0)]
    lines = (journal.folder / "dead_letters.jsonl").read_text().splitlines()
    refused = [json.loads(line)["record"] for line in lines]
    assert {item.get("key", item.get("path")) for item in refused} == {
        "no|such*param",
        "no|such*name",
        "checkpoints/best/model.safetensors",
    }
    assert "refused a record" in caplog.text
    assert unsent(journal.folder) == 0


def test_a_run_that_was_deleted_in_mlflow_is_not_made_again(storage: Path) -> None:
    journal = open_journal(storage / "run" / "journal")
    run_id = send(journal.folder, storage)
    MlflowClient(tracking_uri(storage)).delete_run(run_id)
    write_steps(journal, range(1))
    with pytest.raises(RunDeletedError, match=run_id):
        send(journal.folder, storage)
    (journal.folder / "sent.json").unlink()
    with pytest.raises(RunDeletedError, match=run_id):
        send(journal.folder, storage)
    assert run_count(storage) == 1


def test_a_restart_goes_on_in_the_same_run(storage: Path) -> None:
    first = open_journal(storage / "run" / "journal")
    write_steps(first, range(3))
    first.finish("FAILED")
    run_id = send(first.folder, storage)
    second = open_journal(storage / "run" / "journal")
    assert send(second.folder, storage) == run_id
    client = MlflowClient(tracking_uri(storage))
    assert client.get_run(run_id).info.status == "RUNNING"
    write_steps(second, range(5))
    second.finish("FINISHED")
    assert send(second.folder, storage) == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert metric_rows(storage, run_id) == expected_rows(range(5))


def test_another_database_at_the_same_address_gets_everything(storage: Path) -> None:
    journal = open_journal(storage / "run" / "journal")
    write_steps(journal, range(6))
    send(journal.folder, storage)
    with sqlite3.connect(storage / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"delete from {table}")
    assert metric_rows(storage, send(journal.folder, storage)) == expected_rows(range(6))


def test_a_run_that_was_moved_before_it_was_sent_keeps_its_checkpoint(storage: Path) -> None:
    checkpoint = storage / "run" / "checkpoints" / "model.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    journal = open_journal(storage / "run" / "journal")
    journal.link("checkpoints/best/model.safetensors", checkpoint)
    journal.close()
    (storage / "run").rename(storage / "moved")
    run_id = send(storage / "moved" / "journal", storage)
    found = MlflowClient(tracking_uri(storage)).list_artifacts(run_id, "checkpoints/best")
    assert [entry.path for entry in found] == ["checkpoints/best/model.safetensors"]


def test_a_file_that_is_back_is_sent_by_hand_and_what_stays_away_is_counted(storage: Path) -> None:
    gone = [storage / "run" / "mount" / name for name in ("a.bin", "b.bin")]
    journal = open_journal(storage / "run" / "journal")
    for path in gone:
        journal.link(f"checkpoints/{path.name}", path)
    journal.metrics(1, {"no|such*name": 1.0})
    journal.close()
    (first,) = resend(storage / "run", EXPERIMENT)
    assert first.set_aside == 3
    gone[0].parent.mkdir()
    gone[0].write_bytes(b"weights")
    (again,) = resend(storage / "run", EXPERIMENT)
    assert again.set_aside == 2
    found = MlflowClient(tracking_uri(storage)).list_artifacts(again.run_id, "checkpoints")
    assert [entry.path for entry in found] == ["checkpoints/a.bin"]
    with pytest.raises(SystemExit, match="1"):
        run(command, ["sync", str(storage / "run"), "--experiment", EXPERIMENT])


def test_a_file_that_mlflow_refuses_again_stays_set_aside(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(storage / "run" / "journal")
    journal.text("notes.txt", "x")
    journal.close()

    def refuse(*_: object) -> None:
        raise MlflowException("no such name", INVALID_PARAMETER_VALUE)

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    for _ in range(2):
        (sent,) = resend(storage / "run", EXPERIMENT)
        assert sent.set_aside == 1
    monkeypatch.undo()
    (sent,) = resend(storage / "run", EXPERIMENT)
    assert sent.set_aside == 0


def test_a_run_is_not_sent_to_a_second_experiment(storage: Path) -> None:
    journal = open_journal(storage / "run" / "journal")
    journal.close()
    (sent,) = resend(storage / "run", "first")
    with pytest.raises(ValueError, match=r"--experiment second: .*run was sent to first already"):
        list(resend(storage / "run", "second"))
    assert [again.run_id for again in resend(storage / "run", "first")] == [sent.run_id]
    assert run_count(storage) == 1


def test_a_deleted_experiment_is_said_and_not_made_again(storage: Path) -> None:
    client = MlflowClient(tracking_uri(storage))
    client.delete_experiment(client.create_experiment(EXPERIMENT))
    journal = open_journal(storage / "run" / "journal")
    with pytest.raises(RunDeletedError, match=f"experiment {EXPERIMENT} was deleted in MLflow"):
        send(journal.folder, storage)


def test_an_empty_twin_that_a_late_request_made_is_deleted(storage: Path) -> None:
    journal = open_journal(storage / "run" / "journal")
    write_steps(journal, range(2))
    run_id = send(journal.folder, storage)
    client = MlflowClient(tracking_uri(storage))
    run_found = client.get_run(run_id)
    tags = {tracking.JOURNAL_TAG: journal.id, "mlflow.runName": "a"}
    twin = client.create_run(run_found.info.experiment_id, tags=tags).info.run_id
    journal.finish("FINISHED")
    assert send(journal.folder, storage) == run_id
    (left,) = client.search_runs([run_found.info.experiment_id])
    assert left.info.run_id == run_id != twin
    (journal.folder / "sent.json").unlink()
    assert send(journal.folder, storage) == run_id


def test_a_sweep_and_its_trials_are_sent_by_hand_into_the_sweeps_storage(storage: Path) -> None:
    sweep = storage / "sweep"
    trial = sweep / "trials" / "0"
    for folder in (sweep, trial):
        journal = open_journal(folder / "journal", name=folder.name)
        write_steps(journal, range(2))
        journal.close()
    first = {sent.folder: sent.run_id for sent in resend(sweep, EXPERIMENT)}
    assert set(first) == {sweep, trial} and run_count(storage) == 2
    again = {sent.folder: sent.run_id for sent in resend(trial, EXPERIMENT)}
    assert again == {trial: first[trial]} and run_count(storage) == 2
    assert not (sweep / "trials" / "mlflow.db").exists()
