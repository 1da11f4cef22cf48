"""One thread sends a run's journal, or a sweep's and those of its trials as they come."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import expected_rows, metric_rows, open_journal, run_count, write_steps
from mlflow import MlflowClient

from spikeseg.jobs.cli import run
from spikeseg.jobs.track import command
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.send_again import resend
from spikeseg.platform.tracking.upload.upload_thread import Sender

EXPERIMENT = "sweeps"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sent_runs(storage: Path) -> set[str]:
    """Names of the runs in MLflow's database that have a tag of their own."""
    with contextlib.closing(sqlite3.connect(storage / "mlflow.db")) as database:
        return {
            name
            for (name,) in database.execute(
                "select name from runs join tags using (run_uuid) where key = 'T'"
            )
        }


def test_trials_that_come_later_are_sent_and_a_deleted_one_is_no_obstacle(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = storage / "sweep"
    journals = {"sweep": open_journal(sweep / "journal", name="sweep")}
    sender = Sender(
        sweep / "journal", tracking_uri(storage), EXPERIMENT, sweep, poll=0.02, delay=3600
    )
    sender.start()
    sender.begin()
    client = MlflowClient(tracking_uri(storage))
    for number in ("0", "1"):
        journals[number] = open_journal(sweep / "trials" / number / "journal", name=number)
        write_steps(journals[number], range(2))
        wait_for(lambda: run_count(storage) == len(journals))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    wait_for(lambda: len(client.search_runs([experiment.experiment_id])) == 3)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    client.delete_run(runs["0"].info.run_id)
    for number in ("0", "1"):
        write_steps(journals[number], range(2, 4))
        journals[number].finish("KILLED")
    wait_for(lambda: "was deleted in MLflow" in caplog.text)
    journals["sweep"].finish("FINISHED")
    sender.stop(timeout=60)
    assert metric_rows(storage, runs["1"].info.run_id) == expected_rows(range(4))
    ends = {
        run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])
    }
    assert ends == {"sweep": "FINISHED", "1": "KILLED"}
    assert caplog.text.count("was deleted in MLflow") == 1


def test_a_sweep_that_nobody_took_says_how_to_send_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = tmp_path / "sweep"
    for folder in (sweep, sweep / "trials" / "0"):
        open_journal(folder / "journal").close()
    sender = Sender(sweep / "journal", "http://127.0.0.1:9", EXPERIMENT, sweep, delay=3600)
    sender.start()
    sender.stop(timeout=0.5)
    assert caplog.text.count("MLflow is out of reach, will retry") == 1
    assert "2 of 2 journals are not, or not whole, in http://127.0.0.1:9" in caplog.text
    assert f"send the rest with: spikeseg track sync {sweep}" in caplog.text


def refuse(sender: Sender) -> None:
    raise ConnectionError("nobody answers")


def test_what_is_left_is_counted_where_a_part_was_sent(
    storage: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three journals one is whole, one gained records that nobody sends, one was never sent."""
    sweep = storage / "a sweep"
    for folder in (sweep, sweep / "trials" / "0"):
        open_journal(folder / "journal").close()
    uri = tracking_uri(storage)
    first = Sender(sweep / "journal", uri, EXPERIMENT, sweep)
    first.start()
    first.stop(timeout=60)
    assert caplog.text == ""
    for number in ("0", "1"):
        write_steps(open_journal(sweep / "trials" / number / "journal"), range(1))
    monkeypatch.setattr(Sender, "_send_all", refuse)
    second = Sender(sweep / "journal", uri, EXPERIMENT, sweep)
    second.start()
    second.stop(timeout=0.1)
    assert "2 of 3 journals are not, or not whole, in" in caplog.text
    assert f"spikeseg track sync '{sweep}'" in caplog.text


def break_run_records(journal: Path) -> None:
    """Damage every record that has the run's id."""
    path = journal / "records.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"kind":"run"', b'"kind":"ruin"'))


def drop_records(journal: Path) -> None:
    """Replace the records by a folder."""
    (journal / "records.jsonl").unlink()
    (journal / "records.jsonl").mkdir()


def block_lock(journal: Path) -> None:
    """Make the upload's lock a folder."""
    (journal / "sender.lock").mkdir()


def block_state(journal: Path) -> None:
    """Make the note of what was sent a folder that is not empty."""
    (journal / "sent.json" / "full").mkdir(parents=True)


FAULTS = [break_run_records, block_lock, block_state]


@pytest.mark.parametrize("damage", FAULTS)
def test_a_damaged_journal_is_named_once_and_hides_no_other(
    storage: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    sweep = storage / "sweep"
    trials = [sweep / "trials" / number / "journal" for number in ("0", "1", "2")]
    for journal in (sweep / "journal", *trials):
        write_steps(open_journal(journal, name=journal.parent.name), range(1))
    damage(trials[0])
    sender = Sender(sweep / "journal", tracking_uri(storage), EXPERIMENT, sweep, poll=0.02)
    sender.start()
    wait_for(lambda: "not sent to MLflow" in caplog.text and sent_runs(storage) >= {"1", "2"})
    late = open_journal(sweep / "trials" / "3" / "journal", name="3")
    late.close()
    wait_for(lambda: "3" in sent_runs(storage))
    sender.stop(timeout=60)
    assert caplog.text.count(f"not sent to MLflow: {trials[0]}") == 1
    assert "1 of 5 journals are not, or not whole, in" in caplog.text


def test_a_journal_that_mlflow_never_takes_hides_no_other(
    storage: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a server answers one run's requests with an error of its own."""
    sweep = storage / "sweep"
    for number in ("0", "1", "2"):
        open_journal(sweep / "trials" / number / "journal", name=number).close()
    open_journal(sweep / "journal", name="sweep").close()
    send = Sender._send

    def fail_for_one(sender: Sender, journal: Path) -> None:
        if journal.parent.name == "0":
            raise ConnectionError("500 for this run alone")
        send(sender, journal)

    monkeypatch.setattr(Sender, "_send", fail_for_one)
    sender = Sender(sweep / "journal", tracking_uri(storage), EXPERIMENT, sweep, poll=0.02)
    sender.start()
    wait_for(lambda: sent_runs(storage) == {"sweep", "1", "2"})
    sender.stop(timeout=0.1)
    assert f"{sweep / 'trials' / '0' / 'journal'}: not sent, will retry: 500" in caplog.text
    assert "1 of 4 journals are not, or not whole, in" in caplog.text


def test_an_outage_is_not_met_anew_by_every_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    for number in range(6):
        open_journal(sweep / "trials" / str(number) / "journal").close()
    tried: list[str] = []

    def refuse_one(sender: Sender, journal: Path) -> None:
        tried.append(journal.parent.name)
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(Sender, "_send", refuse_one)
    sender = Sender(sweep / "journal", "http://127.0.0.1:9", EXPERIMENT, sweep)
    with pytest.raises(ConnectionError):
        sender._send_all()
    assert tried == ["0", "1"]


@pytest.mark.parametrize("damage", [*FAULTS, drop_records])
def test_sending_by_hand_names_the_damaged_journal_and_sends_the_others(
    storage: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    sweep = storage / "sweep"
    trials = [sweep / "trials" / number / "journal" for number in ("0", "1", "2")]
    for journal in (sweep / "journal", *trials):
        open_journal(journal, name=journal.parent.name).close()
    # What is no trial is passed over.
    (sweep / "trials" / "notes" / "journal").mkdir(parents=True)
    damage(trials[1])
    with pytest.raises(SystemExit, match="1"):
        run(command, ["sync", str(sweep), "--experiment", EXPERIMENT])
    printed = capsys.readouterr()
    assert f"{trials[1].parent}: NOT SENT: {trials[1]}: " in printed.out
    assert printed.out.count("sent to") == 3
    assert "1 journals could not be sent" in printed.err
    assert sent_runs(storage) == {"sweep", "0", "2"}


def test_a_damaged_configuration_of_a_trial_leaves_the_experiment_to_the_others(
    storage: Path,
) -> None:
    sweep = storage / "sweep"
    for number in ("0", "1"):
        open_journal(sweep / "trials" / number / "journal", name=number).close()
    (sweep / "trials" / "0" / "config.yaml").write_text("tracking: [1, 2")
    with pytest.raises(ValueError, match=r"trials/0/config\.yaml: .*--experiment NAME"):
        list(resend(sweep))
