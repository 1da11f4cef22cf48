"""The journal keeps what was written, whatever kills the writer."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from journals import open_journal, picture, write_steps

from spikeseg.platform.tracking.journal import Journal, append_end, confined, file_of
from spikeseg.platform.tracking.journal_lines import read_records


def values(folder: Path) -> dict[tuple[str, int], list[float]]:
    """Every recorded value of every key and step."""
    found: dict[tuple[str, int], list[float]] = {}
    for record in read_records(folder):
        if record["kind"] == "metrics":
            for key, value in record["values"].items():
                found.setdefault((key, record["step"]), []).append(value)
    return found


def test_a_record_is_a_line_with_value_and_time(tmp_path: Path) -> None:
    before = time.time() * 1000 - 1
    journal = open_journal(tmp_path)
    journal.metrics(3, {"val/mIoU": 41.5})
    last = list(read_records(tmp_path))[-1]
    assert last["values"] == {"val/mIoU": 41.5}
    assert last["step"] == 3
    assert before <= last["time"] <= time.time() * 1000


def test_a_step_that_is_redone_keeps_its_first_record(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.metrics(1, {"train/loss": 2.0})
    journal.image("val", 1, picture(1))
    before = (tmp_path / "records.jsonl").read_bytes()
    journal.metrics(1, {"train/loss": 3.0})
    journal.image("val", 1, picture(2))
    assert (tmp_path / "records.jsonl").read_bytes() == before
    assert file_of(tmp_path, "pictures/val/00000001.png").read_bytes() == picture(1)


def test_a_parameter_keeps_the_value_of_the_first_start(tmp_path: Path) -> None:
    for workers in ("2", "1"):
        params = {"trainer.workers": workers, f"only.{workers}": "x"}
        Journal(tmp_path, run_name="r", tags={}, params=params).close()
    given = [r["values"] for r in read_records(tmp_path) if r["kind"] == "params"]
    assert given == [{"trainer.workers": "2", "only.2": "x"}, {"only.1": "x"}]


def test_a_journal_cut_at_any_byte_goes_on_with_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    whole = tmp_path / "whole"
    journal = open_journal(whole)
    write_steps(journal, range(6))
    journal.close()
    data = (whole / "records.jsonl").read_bytes()
    first_line = data.index(b"\n") + 1
    for size in range(len(data) + 1):
        cut = tmp_path / "cut"
        shutil.rmtree(cut, ignore_errors=True)
        cut.mkdir()
        (cut / "records.jsonl").write_bytes(data[:size])
        again = open_journal(cut)
        write_steps(again, range(6))
        again.close()
        assert (again.id == journal.id) == (size >= first_line), size
        assert values(cut) == values(whole), size
        assert (
            (cut / "records.jsonl").read_bytes().startswith(data[: data.rfind(b"\n", 0, size) + 1])
        )


WRITER = """
import sys
from pathlib import Path
from spikeseg.platform.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]), run_name="a", tags={}, params={})
print("open", flush=True)
step = 0
while True:
    journal.metrics(step, {"train/loss": step / 7, "text": len("x" * step)})
    print(step, flush=True)
    step += 1
"""


def test_what_was_recorded_before_a_kill_is_there_and_only_once(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    done = -1
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "journal")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(chance.uniform(0.01, 0.3))
        process.send_signal(signal.SIGKILL)
        steps = [int(line) for line in process.stdout.read().splitlines()[:-1]]
        process.wait()
        done = max([done, *steps])
        kept = values(tmp_path / "journal")
        assert all(kept["train/loss", step] == [step / 7] for step in range(done + 1))
        assert all(len(found) == 1 for found in kept.values())
    assert done > 0


def test_a_lost_machine_costs_what_came_after_the_last_sync(tmp_path: Path) -> None:
    local, mirror = tmp_path / "local", tmp_path / "storage"
    journal = open_journal(local, mirror=mirror)
    write_steps(journal, range(11))
    journal.sync()
    write_steps(journal, range(11, 16))
    shutil.rmtree(local)

    again = open_journal(tmp_path / "other", mirror=mirror)

    assert again.id == journal.id
    assert max(step for _, step in values(tmp_path / "other")) == 10
    assert file_of(tmp_path / "other", "pictures/val/00000010.png").read_bytes() == picture(10)
    write_steps(again, range(11, 16))
    again.close()
    assert values(mirror) == values(tmp_path / "other")
    assert file_of(mirror, "pictures/val/00000015.png").read_bytes() == picture(15)


def test_a_machine_lost_while_it_brought_records_over_leaves_a_mirror_that_goes_on(
    tmp_path: Path,
) -> None:
    mirror = tmp_path / "storage"
    journal = open_journal(tmp_path / "local", mirror=mirror)
    write_steps(journal, range(6))
    journal.sync()
    with (mirror / "records.jsonl").open("ab") as file:
        file.write(b'{"kind":"metrics","st')
    again = open_journal(tmp_path / "other", mirror=mirror)
    write_steps(again, range(9))
    again.close()
    assert all(len(kept) == 1 for kept in values(mirror).values())
    assert max(step for _, step in values(mirror)) == 8


def test_a_full_journal_drops_pictures_first_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(tmp_path, limit=6000)
    for step in range(200):
        journal.image("val", step, picture(step))
        journal.metrics(step, {"val/mIoU": float(step)})
    journal.finish("FINISHED")
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    # The end itself is recorded whatever the limit.
    assert size <= 6000 + 200
    records = list(read_records(tmp_path))
    images = [r["step"] for r in records if r["kind"] == "image"]
    numbers = [r["step"] for r in records if r["kind"] == "metrics"]
    assert images == list(range(len(images)))
    assert numbers == list(range(len(numbers)))
    assert 0 < len(images) < len(numbers) < 200
    assert journal.dropped >= (200 - len(images)) + (200 - len(numbers))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "limit" in messages[0]
    assert str(tmp_path) in messages[0]


def test_a_full_disk_costs_records_and_never_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(tmp_path)
    journal.metrics(0, {"train/loss": 1.0})
    real = os.write

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def half(file: int, data: bytes) -> int:
        return real(file, data[: len(data) // 2])

    for broken in (full, half):
        monkeypatch.setattr(os, "write", broken)
        journal.metrics(1, {"train/loss": 0.5})
        journal.sync()
    monkeypatch.setattr(os, "write", real)
    journal.metrics(2, {"train/loss": 0.25})
    journal.close()
    assert values(tmp_path) == {("train/loss", 0): [1.0], ("train/loss", 2): [0.25]}
    assert "No space left" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 9,
        b"{}",
        b"7",
        b'{"kind":"metrics"}',
        b"\xff\xfe",
        b'{"kind":["a"]}',
        b'{"kind":"metrics","step":1,"time":1,"values":null}',
        b'{"kind":"metrics","step":1,"time":1,"values":{"train/loss":null}}',
        b'{"kind":"metrics","step":100000000000000000000,"time":1,"values":{}}',
        b'{"kind":"file","path":5}',
        b'{"kind":"status","status":"FKNISHED","time":1}',
        b"[" * 100_000,
        b'{"kind":"metrics","step":1,"time":1,"values":{"train/loss":9.0},"crc":"00000000"}',
    ],
    ids=[
        *("zeros", "no kind", "no record", "no values", "no text", "kind of another type"),
        *("null values", "a null value", "a huge step", "path of another type", "no status"),
        *("deep", "wrong check sum"),
    ],
)
def test_a_damaged_line_costs_that_line_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    journal = open_journal(tmp_path)
    for step in range(3):
        journal.metrics(step, {"train/loss": float(step)})
    journal.close()
    path = tmp_path / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    start = sum(len(line) for line in lines[:-2])
    path.write_bytes(b"".join([*lines[:-2], damage + b"\n", lines[-1]]))
    again = open_journal(tmp_path)
    again.metrics(1, {"train/loss": 5.0})
    again.close()
    text = f"1 of records.jsonl, the first at byte {start}"
    assert again.id == journal.id
    assert f"{tmp_path}: damaged lines are left out: {text}" in caplog.text
    assert values(tmp_path) == {
        ("train/loss", 0): [0.0],
        ("train/loss", 1): [5.0],
        ("train/loss", 2): [2.0],
    }
    tags = [record["values"] for record in read_records(tmp_path) if record["kind"] == "tags"]
    assert tags[-1] == {"records_damaged": text}


def test_no_flipped_bit_changes_a_number_or_loses_the_run(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for step in range(3):
        journal.metrics(step, {"train/loss": step + 0.5})
    journal.finish("FINISHED")
    journal.close()
    path = tmp_path / "records.jsonl"
    whole, content = list(read_records(tmp_path)), path.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        found = [record for record in read_records(tmp_path) if record["kind"] != "damaged"]
        # A broken name of the check sum leaves its line as it was, with a field too many.
        assert all(any(good.items() <= record.items() for good in whole) for record in found)
        assert len(found) >= len(whole) - 2
        assert journal.id in [record["id"] for record in found if record["kind"] == "run"]


def test_a_line_without_a_check_sum_is_read_as_before(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.metrics(1, {"train/loss": 2.0})
    journal.close()
    path = tmp_path / "records.jsonl"
    path.write_bytes(re.sub(rb',"crc":"\w+"', b"", path.read_bytes()))
    assert b"crc" not in path.read_bytes()
    assert values(tmp_path) == {("train/loss", 1): [2.0]}
    assert open_journal(tmp_path).id == journal.id


def test_a_file_is_on_the_disk_before_its_record_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path)
    done: list[str] = []
    fsync, write = os.fsync, os.write

    def remember(file: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        fsync(file)

    def record(file: int, data: bytes) -> int:
        done.append(json.loads(data)["kind"])
        return write(file, data)

    monkeypatch.setattr(os, "fsync", remember)
    monkeypatch.setattr(os, "write", record)
    journal.image("val", 1, picture(1))
    assert done[0].startswith(".00000001.png.")
    assert done[1:3] == ["val", "image"]


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc/outside"])
def test_a_path_that_leaves_the_journal_is_refused(tmp_path: Path, path: str) -> None:
    journal = open_journal(tmp_path / "journal")
    for write in (
        lambda: journal.text(path, "x"),
        lambda: journal.link(path, tmp_path),
        lambda: journal.image(f"../../{path}", 0, b""),
        lambda: confined(tmp_path, path),
    ):
        with pytest.raises(ValueError, match="leaves its folder"):
            write()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["journal"]


def test_the_end_of_a_run_can_be_written_by_another_process(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    with (tmp_path / "records.jsonl").open("ab") as file:
        file.write(b'{"kind":"met')
    append_end(tmp_path, {"state": "PRUNED"}, "KILLED")
    tags, status = list(read_records(tmp_path))[-2:]
    assert tags["values"] == {"state": "PRUNED"}
    assert status["status"] == "KILLED"
    assert json.loads((tmp_path / "records.jsonl").read_text().splitlines()[-1])


def test_threads_may_write_at_the_same_time(tmp_path: Path) -> None:
    from threading import Thread

    journal = open_journal(tmp_path)

    def write(name: str, journal: Journal = journal) -> None:
        for step in range(300):
            journal.metrics(step, {name: float(step), "shared": 1.0})

    threads = [Thread(target=write, args=(f"k{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    kept = values(tmp_path)
    assert len(kept) == 4 * 300
    assert all(len(found) == 1 for found in kept.values())


def test_the_end_is_recorded_whatever_the_limit(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal", limit=20_000)
    for step in range(1000):
        journal.metrics(step, {"train/loss": 1.0})
    assert journal.dropped
    journal.finish("FINISHED")
    records = list(read_records(tmp_path / "journal"))
    assert records[-1]["status"] == "FINISHED"
    assert records[-2]["values"] == {"records_dropped": str(journal.dropped)}


def test_a_text_that_is_written_again_counts_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "journal", limit=50_000)
    for _ in range(100):
        journal.text("events.txt", "x" * 1000)
    assert not journal.dropped
