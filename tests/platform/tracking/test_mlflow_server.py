"""The server listens where only this machine reaches it, unless MLflow guards it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from spikeseg.jobs.cli import run
from spikeseg.jobs.ui import command
from spikeseg.platform.cluster.loopback import is_loopback
from spikeseg.platform.tracking import mlflow_server as server
from spikeseg.platform.tracking.mlflow_server import serve, server_command, server_environment
from spikeseg.platform.tracking.pages.page_links import Pages


@pytest.fixture(autouse=True)
def never_start(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been started."""
    started: list[list[str]] = []

    def run(command: list[str], variables: Mapping[str, str]) -> int:
        assert variables["MLFLOW_BACKEND_STORE_URI"]
        started.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "run_until_terminated", run)
    for name in ("MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_FLASK_SERVER_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    return started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_an_address_that_others_reach_is_refused_without_authentication(
    tmp_path: Path, never_start: list[list[str]], host: str
) -> None:
    with pytest.raises(ValueError, match=f"--host {host}: not a loopback address"):
        serve(tmp_path, host=host, port=free_port(), announce=print)
    assert not never_start


def test_authentication_that_is_named_but_not_there_does_not_count(
    tmp_path: Path, never_start: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "missing.ini"))
    with pytest.raises(ValueError, match=r"MLFLOW_AUTH_CONFIG_PATH: .*missing.ini: no such file"):
        serve(tmp_path, host="0.0.0.0", port=free_port(), announce=print)
    (tmp_path / "missing.ini").write_text("[mlflow]\n")
    with pytest.raises(ValueError, match="MLFLOW_FLASK_SERVER_SECRET_KEY"):
        serve(tmp_path, host="0.0.0.0", port=free_port(), announce=print)
    assert not never_start


def test_loopback_is_served_with_this_storage(
    tmp_path: Path, never_start: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    port = free_port()
    said: list[str] = []
    serve(tmp_path, host="127.0.0.1", port=port, announce=said.append)
    assert never_start == [server_command(tmp_path, host="127.0.0.1", port=port)]
    assert f"sqlite:///{tmp_path / 'mlflow.db'}" in never_start[0]
    assert said[0].endswith(f", on port {port} of 127.0.0.1")
    assert "every user of this machine can read, change and delete runs" in said[1]


def test_where_a_password_is_asked_for_nobody_is_warned(
    tmp_path: Path, never_start: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "auth.ini").write_text("[mlflow]\nadmin_password = another\n")
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "auth.ini"))
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(server, "make_database", lambda *_: None)
    said: list[str] = []
    serve(tmp_path, host="127.0.0.1", port=free_port(), announce=said.append)
    assert "every user" not in " ".join(said)
    assert len(never_start) == 1


def test_the_other_loopback_is_served_in_brackets(
    tmp_path: Path, never_start: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "describe_pages", lambda address, _: Pages(address, [address]))
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    said: list[str] = []
    serve(tmp_path, host="::1", port=port, announce=said.append)
    assert said[0].endswith(f", on port {port} of ::1")
    assert f"http://[::1]:{port}" in said
    assert len(never_start) == 1


def test_a_folder_that_does_not_exist_is_not_made(
    tmp_path: Path, never_start: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_text("")
    with pytest.raises(ValueError, match=r"--storage .*rnus: no such folder; .*/runs$"):
        serve(tmp_path / "rnus", host="127.0.0.1", port=free_port(), announce=print)
    assert not (tmp_path / "rnus").exists() and not never_start


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_that_is_none_is_a_wrong_request(
    never_start: list[list[str]], capsys: pytest.CaptureFixture[str], port: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(command, ["--port", port])
    assert "--port" in capsys.readouterr().err
    assert not never_start


def test_a_port_in_use_is_said(tmp_path: Path, never_start: list[list[str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}: cannot listen on 127.0.0.1"):
            serve(tmp_path, host="127.0.0.1", port=port, announce=print)


def test_the_server_reports_nothing_to_its_makers() -> None:
    kept = server_environment()
    assert kept["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert kept.items() >= {k: v for k, v in os.environ.items() if k == "PATH"}.items()


@pytest.mark.parametrize(
    ("host", "safe"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("127.8.8.8", True),
        ("0.0.0.0", False),
        ("localhost.example.org", False),
        ("10.0.0.1", False),
    ],
)
def test_only_loopback_addresses_count_as_loopback(host: str, safe: bool) -> None:
    assert is_loopback(host) is safe


@pytest.mark.slow
def test_ending_the_command_ends_the_server(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "spikeseg.jobs.ui", "--storage", str(tmp_path)]
    process = subprocess.Popen([*command, "--port", str(port)], start_new_session=True)

    def open_now() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def wait_for(state: bool) -> None:
        deadline = time.monotonic() + 120
        while open_now() is not state:
            assert time.monotonic() < deadline, f"port {port} is open: {not state}"
            time.sleep(0.2)

    try:
        wait_for(True)
        process.terminate()
        assert process.wait(60) == 0
        wait_for(False)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_an_address_that_cannot_be_listened_on_is_said(
    tmp_path: Path, never_start: list[list[str]]
) -> None:
    with pytest.raises(ValueError, match="not a loopback address"):
        serve(tmp_path, host="127.0.0.300", port=free_port(), announce=print)
    assert not never_start


def test_where_mlflow_is_served_already_none_is_started(
    tmp_path: Path, never_start: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:hunter2@host:5000")
    with pytest.raises(ValueError, match="MLflow is already served at http://host:5000"):
        serve(tmp_path, host="127.0.0.1", port=free_port(), announce=print)
    assert not never_start


def test_a_password_stays_out_of_the_command_line_and_of_the_announcement(
    tmp_path: Path, never_start: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://bob:hun/ter2@db/x?sslpassword=hunter3")
    told: list[str] = []
    serve(tmp_path, host="127.0.0.1", port=free_port(), announce=told.append)
    assert "postgresql://db/x" in told[0]
    assert all("ter2" not in word and "hunter3" not in word for word in [*told, *never_start[0]])


@pytest.mark.parametrize("by_variable", [False, True])
def test_the_admin_password_that_mlflow_published_is_refused(
    tmp_path: Path,
    never_start: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    by_variable: bool,
) -> None:
    config = tmp_path / "auth.ini"
    config.write_text("[mlflow]\nadmin_password = password1234\n")
    if by_variable:
        config.write_text("[mlflow]\nadmin_password = another\n")
        monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "password1234")
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(config))
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(ValueError, match=r"admin_password .* is the one that MLflow published"):
        serve(tmp_path, host="127.0.0.1", port=free_port(), announce=print)
    assert not never_start
