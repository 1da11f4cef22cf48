"""A journal of somebody else sends nothing but its own files, and holds nothing up."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from journals import metric_rows, open_journal, picture
from mlflow import MlflowClient

from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.tracking.journal_lines import LONGEST_LINE, read_records, record_line
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.send_again import resend
from spikeseg.platform.tracking.upload.upload_thread import JournalList
from spikeseg.platform.tracking.upload.uploader import sync

EXPERIMENT = "hostile"


def append(journal: Path, *lines: str) -> None:
    with (journal / "records.jsonl").open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def sent_files(storage: Path) -> set[bytes]:
    """Contents of all artifacts."""
    return {path.read_bytes() for path in (storage / "artifacts").rglob("*") if path.is_file()}


def test_no_record_sends_what_a_link_leads_to(storage: Path) -> None:
    private = storage / "private"
    private.mkdir()
    (private / "key.txt").write_text("mine")
    journal = open_journal(storage / "run" / "journal")
    journal.text("own.txt", "own")
    files = journal.folder / "files"
    (files / "folder").mkdir()
    (files / "folder" / "inner.txt").symlink_to(private / "key.txt")
    (files / "way").symlink_to(private)
    (files / "key.txt").symlink_to(private / "key.txt")
    (storage / "run" / "way").symlink_to(private)
    os.mkfifo(files / "pipe")
    records = [
        *({"kind": "file", "path": p} for p in ("folder", "way", "way/key.txt", "key.txt", "pipe")),
        {"kind": "file", "path": "/etc/hostname"},
        {"kind": "link", "path": "a/way", "source": "way"},
        {"kind": "link", "path": "b/key.txt", "source": "way/key.txt"},
        {"kind": "link", "path": "c/journal", "source": "journal"},
        {"kind": "link", "path": "../../key.txt", "source": "journal/files/own.txt"},
        {"kind": "image", "name": "x", "step": 1, "time": 1, "path": "way//key.txt"},
    ]
    append(journal.folder, *map(json.dumps, records))
    journal.metrics(3, {"val/mIoU": 40.0})
    run_id = sync(journal.folder, tracking_uri(storage), EXPERIMENT)
    assert metric_rows(storage, run_id) == [("val/mIoU", 3, 40.0)]
    assert sent_files(storage) == {b"own"}
    (sent,) = resend(storage / "run", EXPERIMENT)
    assert sent.set_aside == len(records)
    assert sent_files(storage) == {b"own"}


def test_a_mirror_gives_back_files_and_nothing_that_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "private.txt").write_text("mine")
    journal = open_journal(tmp_path / "a", mirror=tmp_path / "mirror")
    journal.text("own.txt", "own")
    journal.close()
    (tmp_path / "mirror" / "files" / "x.txt").symlink_to(tmp_path / "private.txt")
    os.mkfifo(tmp_path / "mirror" / "files" / "pipe")
    open_journal(tmp_path / "b", mirror=tmp_path / "mirror").close()
    assert [path.name for path in (tmp_path / "b" / "files").iterdir()] == ["own.txt"]


@pytest.mark.parametrize(
    "line",
    [
        '{"kind":"metrics","step":1,"time":1,"values":{"a":"x"}}',
        '{"kind":"metrics","step":1e3,"time":1,"values":{}}',
        '{"kind":"metrics","step":1,"time":' + "9" * 30 + ',"values":{}}',
        '{"kind":["run"],"id":"a"}',
        '{"kind":"file","path":{"a":1}}',
        '{"kind":"tags","values":["a"]}',
        '{"kind":"params","values":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"kind":"params","values":{"a":' + '{"a":' * 2000 + "1" + "}" * 2002,
        '{"kind":"status","status":"DELETED","time":1}',
        "1" * 5000,
        "null",
        "\x1b[2J",
    ],
    ids=lambda line: line[:30],
)
def test_a_line_that_is_no_record_is_damage(tmp_path: Path, line: str) -> None:
    journal = open_journal(tmp_path)
    append(journal.folder, line)
    journal.metrics(1, {"a": 1.0})
    kinds = [record["kind"] for record in read_records(journal.folder)]
    assert kinds[-2:] == ["damaged", "metrics"]


def test_a_record_that_no_database_takes_holds_nothing_up(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(storage / "run" / "journal")
    target = journal.folder / "files" / "p.png"
    target.write_bytes(picture(1))
    image = {"kind": "image", "step": 1, "time": 1, "path": "p.png"}
    records = [
        {"kind": "tags", "values": {"half": "\ud800", "deep": {"a": [1, None]}}},
        {"kind": "tags", "values": {"k" * 1000: "x", "\x1b[2J": "y", "": "z"}},
        {"kind": "params", "values": {"half\udfff": 1, "long": "v" * 100_000}},
        {"kind": "metrics", "step": -1, "time": -1, "values": {"bad name!\n": 1.0}},
        *({**image, "name": name} for name in ("a\0b", "n" * 3000, "\x1b[2J", "é", "a/../../b")),
        {"kind": "file", "path": "f" * 300},
        {"kind": "file", "path": "a\0b"},
        {"kind": "dataset", "name": "", "digest": "\ud800", "context": "", "source": "s"},
    ]
    append(journal.folder, *map(json.dumps, records))
    journal.metrics(3, {"val/mIoU": 40.0})
    run_id = sync(journal.folder, tracking_uri(storage), EXPERIMENT)
    assert ("val/mIoU", 3, 40.0) in metric_rows(storage, run_id)
    run = MlflowClient(tracking_uri(storage)).get_run(run_id)
    assert run.data.tags["half"] == "?"
    assert all(message.isprintable() for message in caplog.messages)
    assert max(map(len, caplog.messages), default=0) < 6000


def test_a_picture_that_decodes_to_gigabytes_is_set_aside(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikeseg.platform.tracking.image_names._MOST_PIXELS", 20)
    journal = open_journal(storage / "run" / "journal")
    journal.image("val", 1, picture(1))
    sync(journal.folder, tracking_uri(storage), EXPERIMENT)
    letters = (journal.folder / "dead_letters.jsonl").read_text()
    assert "pictures/val/00000001.png: picture of 6 x 4 pixels" in letters


def test_a_line_of_gigabytes_is_passed_over_in_pieces(tmp_path: Path) -> None:
    """In a child that may take 1 GB more: a line of 3 GB, most of it a hole in the file."""
    journal = open_journal(tmp_path)
    path = journal.folder / "records.jsonl"
    before = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(before + 300_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + record_line({"kind": "status", "status": "FAILED", "time": 1}))
    program = """
import resource, sys
from pathlib import Path
from spikeseg.platform.tracking.journal_lines import read_records
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 200_000_000, resource.RLIM_INFINITY))
print([record["kind"] for record in read_records(Path(sys.argv[1]))][-2:])
"""
    assert resource.getpagesize() > 0
    command = [sys.executable, "-c", program, str(journal.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "['damaged', 'status']\n", done.stderr


def test_a_record_longer_than_readers_take_is_not_written(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.tags({"a": "x" * LONGEST_LINE})
    journal.tags({"b": "y"})
    assert journal.dropped == 1
    kinds = [record["kind"] for record in read_records(journal.folder)]
    assert "damaged" not in kinds


@pytest.mark.parametrize(
    "state",
    ["[" * 100_000, '{"offset": -1, "tail": "", "address": "", "run_id": ""}', "[]", "7", ""],
    ids=lambda state: state[:12],
)
def test_a_damaged_note_of_what_was_sent_starts_anew(storage: Path, state: str) -> None:
    journal = open_journal(storage / "run" / "journal")
    journal.metrics(3, {"val/mIoU": 40.0})
    (journal.folder / "sent.json").write_text(state)
    run_id = sync(journal.folder, tracking_uri(storage), EXPERIMENT)
    assert metric_rows(storage, run_id) == [("val/mIoU", 3, 40.0)]


@pytest.mark.parametrize(
    "letter", ["[" * 100_000, "{}", '{"record": 1}', '{"record": {"path": 1}}']
)
def test_a_damaged_dead_letter_stays_where_it_is(storage: Path, letter: str) -> None:
    journal = open_journal(storage / "run" / "journal")
    journal.close()
    (journal.folder / "dead_letters.jsonl").write_text(f"{letter}\n")
    (sent,) = resend(storage / "run", EXPERIMENT)
    assert sent.set_aside == 1


def test_folders_beside_trials_are_no_trials(tmp_path: Path) -> None:
    for name in ("0", "10", "2", "x", "²", "-1"):
        Journal(tmp_path / "trials" / name / "journal", run_name="a", tags={}, params={}).close()
    names = [path.parent.name for path in JournalList(tmp_path / "journal", tmp_path).read()]
    assert names == ["0", "2", "10"]
