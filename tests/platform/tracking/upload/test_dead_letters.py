"""What can never be sent is set aside by name and holds nothing up; a journal has one run."""

import json
import os
from pathlib import Path

import pytest
from journals import expected_rows, metric_rows, open_journal, picture, run_count, write_steps
from mlflow import MlflowClient
from requests import HTTPError, Response

from spikeseg.jobs.cli import run
from spikeseg.jobs.track import command
from spikeseg.platform.tracking.journal import Journal, file_of
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.send_again import resend
from spikeseg.platform.tracking.upload.uploader import RunDeletedError, sync

EXPERIMENT = "faults"


def send(journal: Path, storage: Path, experiment: str = EXPERIMENT) -> str:
    return sync(journal, tracking_uri(storage), experiment)


def set_aside(journal: Path) -> dict[str, str]:
    """Path -> why, of every record that was set aside."""
    letters = journal / "dead_letters.jsonl"
    lines = [json.loads(line) for line in letters.read_text().splitlines()]
    return {line["record"]["path"]: line["error"] for line in lines}


def artifacts(storage: Path, run_id: str, folder: str | None = None) -> list[str]:
    found = MlflowClient(tracking_uri(storage)).list_artifacts(run_id, folder)
    return [entry.path for entry in found]


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, status: int) -> None:
    """Whatever stands before MLflow answers for one file with a status."""
    log_artifact = MlflowClient.log_artifact

    def answer(client: MlflowClient, run_id: str, path: str, place: str | None = None) -> None:
        if Path(path).name == name:
            response = Response()
            response.status_code = status
            raise HTTPError(f"{status} Client Error", response=response)
        log_artifact(client, run_id, path, place)

    monkeypatch.setattr(MlflowClient, "log_artifact", answer)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_file_that_a_server_never_takes_holds_nothing_up(
    storage: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    journal = open_journal(storage / "run" / "journal")
    for name in ("large.bin", "small.bin"):
        journal.text(name, "x")
    journal.finish("FINISHED")
    refuse(monkeypatch, "large.bin", status)
    run_id = send(journal.folder, storage)
    assert artifacts(storage, run_id) == ["small.bin"]
    assert MlflowClient(tracking_uri(storage)).get_run(run_id).info.status == "FINISHED"
    assert set(set_aside(journal.folder)) == {"large.bin"}
    monkeypatch.undo()
    (sent,) = resend(storage / "run", EXPERIMENT)
    assert sent.set_aside == 0
    assert artifacts(storage, run_id) == ["large.bin", "small.bin"]


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_a_refusal_that_may_end_is_tried_again(
    storage: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    journal = open_journal(storage / "run" / "journal")
    journal.text("notes.txt", "x")
    refuse(monkeypatch, "notes.txt", status)
    said = rf"sqlite.* answers with an error: {status} Client Error"
    with pytest.raises(RuntimeError, match=said):
        send(journal.folder, storage)
    monkeypatch.undo()
    assert artifacts(storage, send(journal.folder, storage)) == ["notes.txt"]


@pytest.mark.parametrize("kept", [0, 20, 45], ids=["empty", "head only", "cut"])
def test_a_damaged_picture_is_set_aside_by_name_and_the_rest_arrives(
    storage: Path, kept: int
) -> None:
    journal = open_journal(storage / "run" / "journal")
    for step in (1, 2):
        journal.image("val", step, picture(step))
    journal.metrics(3, {"val/mIoU": 40.0})
    journal.close()
    damaged = file_of(journal.folder, "pictures/val/00000001.png")
    damaged.write_bytes(damaged.read_bytes()[:kept])
    run_id = send(journal.folder, storage)
    assert set_aside(journal.folder) == {
        "pictures/val/00000001.png": f"pictures/val/00000001.png: not a whole picture, {kept} bytes"
    }
    assert all("+step+2+" in path for path in artifacts(storage, run_id, "images"))
    assert metric_rows(storage, run_id) == [("val/mIoU", 3, 40.0)]


def test_a_run_folder_of_somebody_else_sends_no_file_from_outside_of_it(storage: Path) -> None:
    private = storage / "private.txt"
    private.write_text("mine")
    journal = open_journal(storage / "run" / "journal")
    os.symlink(private, storage / "run" / "linked.txt")
    lines = [
        {"kind": "link", "path": "a/private.txt", "source": str(private)},
        {"kind": "link", "path": "b/private.txt", "source": "../private.txt"},
        {"kind": "link", "path": "linked.txt", "source": "linked.txt"},
        {"kind": "file", "path": "../../../private.txt"},
        {"kind": "file", "path": "c/../d.txt"},
        {"kind": "image", "name": "x", "step": 1, "time": 1, "path": "../../../private.txt"},
    ]
    with (journal.folder / "records.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    journal.metrics(3, {"val/mIoU": 40.0})
    run_id = send(journal.folder, storage)
    assert set(set_aside(journal.folder)) == {str(line["path"]) for line in lines}
    assert artifacts(storage, run_id) == []
    assert metric_rows(storage, run_id) == [("val/mIoU", 3, 40.0)]


def test_a_local_journal_sends_the_checkpoints_of_its_runs_folder(storage: Path) -> None:
    from spikeseg.platform.tracking.upload.upload_thread import Sender

    checkpoint = storage / "run" / "model.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    local = storage / "local" / "run-01"
    journal = open_journal(local, mirror=storage / "run" / "journal")
    journal.link("model.safetensors", checkpoint)
    journal.close()
    sender = Sender(local, tracking_uri(storage), EXPERIMENT, storage / "run")
    sender.start()
    sender.stop(timeout=60)
    assert artifacts(storage, send(local, storage)) == ["model.safetensors"]


def test_a_journal_keeps_its_run_whatever_experiment_is_named_later(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(storage / "run" / "journal")
    write_steps(journal, range(2))
    run_id = send(journal.folder, storage, "first")
    (journal.folder / "sent.json").unlink()
    assert send(journal.folder, storage, "second") == run_id
    assert f"goes on as run {run_id} of experiment first, not in second" in caplog.text
    (journal.folder / "sent.json").unlink()
    with pytest.raises(ValueError, match=r"--experiment second: .*run was sent to first already"):
        list(resend(storage / "run", "second"))
    assert run_count(storage) == 1


def test_a_trial_that_was_sent_before_its_sweep_becomes_its_child_later(storage: Path) -> None:
    sweep, trial = storage / "sweep", storage / "sweep" / "trials" / "0"
    parent = open_journal(sweep / "journal")
    tags, params = {"T": "2"}, {"a": "1"}
    Journal(trial / "journal", run_name="0", tags=tags, params=params, parent=parent.id).close()
    parent.close()
    (early,) = resend(trial, EXPERIMENT)
    client = MlflowClient(tracking_uri(storage))
    assert "mlflow.parentRunId" not in client.get_run(early.run_id).data.tags
    sent = {item.folder: item.run_id for item in resend(sweep, EXPERIMENT)}
    assert client.get_run(early.run_id).data.tags["mlflow.parentRunId"] == sent[sweep]


def test_a_deleted_run_is_said_though_nothing_is_left_to_send(storage: Path) -> None:
    journal = open_journal(storage / "run" / "journal")
    journal.close()
    run_id = send(journal.folder, storage)
    MlflowClient(tracking_uri(storage)).delete_run(run_id)
    with pytest.raises(RunDeletedError, match=f"run {run_id} was deleted in MLflow"):
        list(resend(storage / "run", EXPERIMENT))


def test_damaged_lines_are_said_and_the_rest_arrives(
    storage: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = open_journal(storage / "run" / "journal")
    write_steps(journal, range(3))
    journal.close()
    path = journal.folder / "records.jsonl"
    # The first line has the run's id.
    path.write_bytes(b"?" + path.read_bytes()[1:])
    (journal.folder / "dead_letters.jsonl").write_text("torn")
    for _ in range(2):
        with pytest.raises(SystemExit, match="1"):
            run(command, ["sync", str(storage / "run"), "--experiment", EXPERIMENT])
    said = "1 of records.jsonl, the first at byte 0"
    assert f"{journal.folder}: damaged lines are not sent: {said}" in caplog.text
    assert "1 lines of the journals are damaged and were not sent" in capsys.readouterr().err
    (sent,) = resend(storage / "run", EXPERIMENT)
    assert metric_rows(storage, sent.run_id) == expected_rows(range(3))
    client = MlflowClient(tracking_uri(storage))
    assert client.get_run(sent.run_id).data.tags["records_damaged"] == said
