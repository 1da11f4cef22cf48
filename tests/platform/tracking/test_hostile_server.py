"""Whatever a tracking server answers costs bounded time and memory and is told in one sentence."""

import gzip
import logging
import threading
from pathlib import Path

import pytest
from hostile_server import Answer, drip, endless, serving, whole
from journals import open_journal

from spikeseg.platform.tracking import bounded_answers, run_reader
from spikeseg.platform.tracking.run_reader import read_run
from spikeseg.platform.tracking.upload.upload_offset import unsent
from spikeseg.platform.tracking.upload.upload_thread import Sender
from spikeseg.platform.tracking.upload.uploader import sync

PASSWORD = "hunter22-of-somebody"
PAGE = f"<!doctype html><html><head><title>Sign in</title>token={PASSWORD}" + "<p> a:" * 100_000
MESSAGE = f'{{"error_code":"X","message":"\\u001b[2J\\u001b]0;p\\u0007token={PASSWORD} \\u202e"}}'
ANSWERS: dict[str, tuple[Answer, str]] = {
    "page as an error": (whole(PAGE.encode(), "403 Forbidden"), "an HTML page: Sign in"),
    "page as an answer": (whole(PAGE.encode()), "an HTML page: Sign in"),
    "long error": (whole(b"a:" * 90_000, "400 Bad"), r"\[cut: 180\d+ characters in all\]"),
    "escapes": (whole(MESSAGE.encode(), "400 Bad"), "hidden"),
    "list": (whole(b"[1, 2]"), "not in a valid JSON format"),
    "number": (whole(b"7"), "not in a valid JSON format"),
    "deep": (whole(b'{"a":' + b"[" * 100_000), "not in a valid JSON format"),
    "other shape": (
        whole(b'{"run": {"info": {"run_id": {"a": 1}}}, "experiments": [{"name": 3}]}'),
        "does not answer as MLflow does",
    ),
    "nothing": (whole(b""), "answer"),
    "another run": (
        whole(b'{"run": {"info": {"run_id": "1"}}, "experiments": [{"name": 3}]}'),
        "does not answer as MLflow does",
    ),
    "redirect": (whole(b"", "302 Found", "Location: http://127.0.0.1:9/x"), "error code 302"),
    "bytes without end": (endless, "longer than 64000000 bytes"),
    "bomb": (
        whole(gzip.compress(bytes(200_000_000), 1), "200 OK", "Content-Encoding: gzip"),
        "longer than 64000000 bytes",
    ),
    "slow body": (drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"), "not whole after"),
    "slow head": (drip(b"HTTP/1.1 200 OK\r\n"), "Read timed out"),
    "cut body": (
        whole(b'{"a": 1}', "200 OK", "Content-Encoding: gzip"),
        "out of reach",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_hostile_answer_is_told_in_one_sentence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, said = ANSWERS[name]
    if name.startswith("slow"):
        monkeypatch.setattr(bounded_answers, "seconds_for_answer", lambda timeout: 0.5)
    journal = open_journal(tmp_path / "run" / "journal")
    with serving(answer) as uri:
        for ask in (
            lambda: sync(journal.folder, uri, "x"),
            lambda: read_run(uri, "0" * 32),
        ):
            with pytest.raises(RuntimeError, match=said) as raised:
                ask()
            text = str(raised.value)
            assert text.isprintable()
            assert len(text) < 2300
            assert PASSWORD not in text
    assert unsent(journal.folder) > 0


def test_the_sender_outlives_a_hostile_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikeseg.platform.tracking.upload.upload_thread._FIRST_RETRY", 0.05)
    journal = open_journal(tmp_path / "run" / "journal")
    with caplog.at_level(logging.WARNING), serving(ANSWERS["long error"][0]) as uri:
        sender = Sender(journal.folder, uri, "x", tmp_path / "run", poll=0.05)
        sender.start()
        sender.stop(timeout=1)
    assert "will retry" in caplog.text
    assert max(map(len, caplog.messages)) < 2500
    assert not [thread for thread in threading.enumerate() if thread.name == "mlflow-sender"]


def test_folders_in_folders_without_end_are_refused() -> None:
    class Entry:
        def __init__(self, path: str, is_dir: bool) -> None:
            self.path, self.is_dir = path, is_dir

    class Deep:
        def list_artifacts(self, run_id: str, folder: str | None) -> list[Entry]:
            return [Entry(f"{folder or ''}/a", is_dir=True)]

    class Wide:
        def list_artifacts(self, run_id: str, folder: str | None) -> list[Entry]:
            return [Entry(str(number), is_dir=False) for number in range(100_001)]

    with pytest.raises(RuntimeError, match="deeper than 12 folders"):
        run_reader._paths(Deep(), "0", None)
    with pytest.raises(RuntimeError, match="more than 100000 artifacts"):
        run_reader._paths(Wide(), "0", None)
