"""MLflow's server over a storage folder."""

import configparser
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from pathlib import Path

from ..cluster.loopback import is_loopback
from ..config.typed_paths import sqlite_file
from .mlflow_client import make_database
from .pages.page_links import describe_pages, find_neighbours
from .tracking_uri import tracking_uri, without_user

# What MLflow shipped for the user `admin` until it stopped to ship one.
_PUBLISHED_PASSWORD = "password1234"


def serve(
    storage: Path,
    *,
    host: str,
    port: int,
    announce: Callable[[str], None],
    open_browser: bool = False,
) -> None:
    """Run MLflow's server until it is interrupted.

    Args:
        storage: Folder of all runs.
        host: Address to listen on.
        port: Port to listen on.
        announce: Takes the lines with the addresses of pages and with who reaches them.
        open_browser: Whether the runs' page is opened in the system's browser.

    Raises:
        ValueError: Where the address is not loopback and MLflow has no authentication configured,
            where it cannot be listened on, where MLflow is served elsewhere already, or where the
            folder does not exist.
        RuntimeError: Where the server fails.
    """
    guarded = "MLFLOW_AUTH_CONFIG_PATH" in os.environ
    if not is_loopback(host) and not guarded:
        raise ValueError(
            f"--host {host}: not a loopback address, and MLflow's authentication is not configured "
            "(MLFLOW_AUTH_CONFIG_PATH); anyone who reaches it could read and delete runs"
        )
    if guarded:
        _check_authentication(Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"]))
    uri = tracking_uri(storage)
    if uri.startswith(("http://", "https://")):
        raise ValueError(f"MLFLOW_TRACKING_URI: MLflow is already served at {without_user(uri)}")
    database = sqlite_file(uri)
    if database is not None and database.parent == storage.absolute() and not storage.is_dir():
        found = ", ".join(map(str, find_neighbours(storage)))
        there = f"; there are runs in {found}" if found else ""
        raise ValueError(f"--storage {storage}: no such folder{there}")
    _check_free(host, port)
    shown = f"[{host}]" if ":" in host else host
    # As the server would, which must not make it while a training does.
    make_database(uri, "mlflow-artifacts:/")
    announce(f"MLflow over {without_user(uri)}, on port {port} of {host}")
    if not guarded:
        announce(
            "every user of this machine can read, change and delete runs there; "
            "MLFLOW_AUTH_CONFIG_PATH asks for a password (docs/tracking.md)"
        )
    pages = describe_pages(f"http://{shown}:{port}", storage)
    for line in pages.lines:
        announce(line)
    if open_browser:
        opener = threading.Thread(target=_open_when_up, args=(host, port, pages.first), daemon=True)
        opener.start()
    try:
        # The address goes by a variable: any user of the machine can read a command line.
        command = server_command(storage, host=host, port=port)
        code = run_until_terminated(command, {"MLFLOW_BACKEND_STORE_URI": uri})
    except KeyboardInterrupt:
        return
    if code:
        raise RuntimeError(f"MLflow's server ended with code {code}")


def _open_when_up(host: str, port: int, page: str) -> None:
    for _ in range(120):
        with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), port), 1):
            webbrowser.open(page)
            return
        time.sleep(0.5)


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ValueError(f"--port {port}: cannot listen on {host} ({error.strerror})") from error


def run_until_terminated(command: list[str], variables: Mapping[str, str]) -> int:
    """Run a server until it ends; a SIGTERM to this process ends it too.

    Args:
        command: The command line.
        variables: Environment variables beside `server_environment`'s.

    Returns:
        Its exit code; 0 where SIGTERM ended it.
    """
    terminated = threading.Event()
    with subprocess.Popen(command, env={**server_environment(), **variables}) as process:

        def end(*_: object) -> None:
            terminated.set()
            process.terminate()

        before = signal.signal(signal.SIGTERM, end)
        try:
            code = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0 if terminated.is_set() else code


def server_command(storage: Path, *, host: str, port: int) -> list[str]:
    """The command line of MLflow's server over a storage folder.

    An address with a user in it is left out: MLFLOW_BACKEND_STORE_URI has to hold it.

    Args:
        storage: Folder of all runs.
        host: Address to listen on.
        port: Port to listen on.
    """
    uri = tracking_uri(storage)
    arguments = [
        *("--host", host, "--port", str(port), "--workers", "1"),
        *(("--backend-store-uri", uri) if uri == without_user(uri) else ()),
        # Through the server: what another machine sends must not end on that machine's disk.
        *("--artifacts-destination", (storage.absolute() / "artifacts").as_uri()),
        # Its own lines name an address that opens on a welcome page.
        *("--uvicorn-opts", "--log-level warning"),
    ]
    app = "basic-auth" if "MLFLOW_AUTH_CONFIG_PATH" in os.environ else "spikeseg"
    return [sys.executable, "-m", "mlflow", "server", "--app-name", app, *arguments]


def server_environment() -> dict[str, str]:
    """This process's environment, with telemetry and MLflow's job runners off."""
    return {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PYTHONWARNINGS": "ignore",
    }


def _check_authentication(config: Path) -> None:
    """Refuse a configuration with which MLflow would start and fail, or show a traceback."""
    if not config.is_file():
        raise ValueError(f"MLFLOW_AUTH_CONFIG_PATH: {config}: no such file")
    if not os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY"):
        raise ValueError(
            "MLFLOW_FLASK_SERVER_SECRET_KEY: MLflow's authentication needs it, not set"
        )
    if importlib.util.find_spec("flask_wtf") is None:
        raise ValueError("MLflow's authentication needs: pip install 'mlflow[auth]'")
    read = configparser.ConfigParser()
    try:
        read.read_string(config.read_text())
        password = read.get("mlflow", "admin_password", fallback=None)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ValueError(f"MLFLOW_AUTH_CONFIG_PATH: {config}: cannot be read: {error}") from error
    if os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD", password) == _PUBLISHED_PASSWORD:
        raise ValueError(
            f"MLFLOW_AUTH_CONFIG_PATH: {config}: admin_password (or MLFLOW_AUTH_ADMIN_PASSWORD) is "
            "the one that MLflow published; set another"
        )
