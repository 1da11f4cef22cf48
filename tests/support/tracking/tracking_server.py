"""MLflow's server for tests: on loopback, started as `spikeseg ui` starts it."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from spikeseg.platform.tracking.mlflow_server import server_command, server_environment


class TrackingServer:
    """A server over a storage folder; it can be started, killed and started again.

    Args:
        storage: Folder of all runs; the database is in it.
    """

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it was started and is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.storage.mkdir(parents=True, exist_ok=True)
        with (self.storage / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                server_command(self.storage, host="127.0.0.1", port=self.port),
                env=server_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 500
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.kill()
        raise RuntimeError((self.storage / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """Kill it and everything it started, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
