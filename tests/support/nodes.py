"""Several nodes on one machine: of Ray's own test cluster, or in namespaces with own addresses."""

import contextlib
import logging
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

SPIKESEG = (sys.executable, "-m", "spikeseg.jobs.cli")
_IP = "ip"


class Nodes:
    """A head without CPUs and nodes with one each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers = [self.add(), self.add()]

    def add(self) -> object:
        return self.cluster.add_node(num_cpus=1)

    def lose(self, generator: random.Random) -> None:
        """Kill a node without grace."""
        lost = self.workers.pop(generator.randrange(len(self.workers)))
        self.cluster.remove_node(lost, allow_graceful=False)


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """A head and two nodes, to which this process is connected; their environment is its own."""
    import ray

    made = Nodes()
    try:
        ray.init(address=made.cluster.address, log_to_driver=False, logging_level=logging.WARNING)
        yield made
    finally:
        ray.shutdown()
        made.cluster.shutdown()


class Ended(NamedTuple):
    """A command that ended.

    Attributes:
        code: Its exit code.
        output: What it wrote to both outputs.
    """

    code: int
    output: str


class Started(NamedTuple):
    """A command that runs; what it writes to both outputs is in the log."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def wait(self, seconds: float = 240) -> Ended:
        """Wait until it ends."""
        code = self.process.wait(seconds)
        return Ended(code, self.log.read_text())

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until it has written a text."""
        until = time.monotonic() + seconds
        while text not in (written := self.log.read_text()):
            assert self.process.poll() is None and time.monotonic() < until, written
            time.sleep(0.2)


class Machine:
    """A machine: its own addresses, home and Ray folder; files are those of the test's machine.

    Args:
        space: Name of its network namespace.
        address: Its address on the cable.
        folder: For its home and for Ray's sockets.

    Attributes:
        variables: Environment of its processes.
        before: Words before each command, such as a program that hides a folder.
    """

    def __init__(self, space: str, address: str, folder: Path) -> None:
        self.address = address
        self.home = folder / "home"
        self.home.mkdir()
        self._space = space
        self._started: list[subprocess.Popen[bytes]] = []
        self.before: Sequence[str] = ()
        self.variables = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "RAY_TMPDIR": str(folder),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *words: str, **variables: str) -> Started:
        """Start a command there; it ends with the test."""
        log = self.home / f"{len(self._started)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [_IP, "netns", "exec", self._space, *self.before, *words],
                env=self.variables | variables,
                cwd=self.home,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._started.append(process)
        return Started(process, log)

    def run(self, *words: str, **variables: str) -> Ended:
        """Run a command there to its end."""
        return self.start(*words, **variables).wait()

    def spikeseg(self, *arguments: str, **variables: str) -> Ended:
        """Run a verb there to its end."""
        return self.run(*SPIKESEG, *arguments, **variables)

    def pids(self) -> list[int]:
        """Every process that runs there."""
        listed = subprocess.run([_IP, "netns", "pids", self._space], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def kill(self) -> None:
        """End every process there at once, as a machine that loses its power."""
        until = time.monotonic() + 20
        while (pids := self.pids()) and time.monotonic() < until:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for process in self._started:
            process.wait(timeout=20)


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines that reach each other by their addresses, and nothing else.

    The test is skipped where namespaces cannot be made.
    """
    if shutil.which(_IP) is None:
        pytest.skip("network namespaces: iproute2's `ip` is not installed")
    mark = secrets.token_hex(3)
    spaces = [f"spikeseg-{mark}-{name}" for name in "ab"]
    cables = [f"s{mark}{name}" for name in "ab"]
    network = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
    with contextlib.ExitStack() as opened:
        for space in spaces:
            made = subprocess.run([_IP, "netns", "add", space], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"network namespaces are not permitted here: {made.stderr.strip()}")
            opened.callback(_ip, "netns", "del", space)
        _ip(
            *("link", "add", cables[0], "netns", spaces[0]),
            *("type", "veth", "peer", "name", cables[1], "netns", spaces[1]),
        )
        machines = []
        for number, (space, cable) in enumerate(zip(spaces, cables, strict=True), start=1):
            _ip("-n", space, "addr", "add", f"{network}.{number}/24", "dev", cable)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", cable, "up")
            # Sockets have short paths.
            short = opened.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="m"))
            machines.append(Machine(space, f"{network}.{number}", Path(short)))
            opened.callback(machines[-1].kill)
        yield machines[0], machines[1]


def _ip(*words: str) -> None:
    subprocess.run([_IP, *words], check=True, capture_output=True)


def wait_until_answers(machine: Machine, address: str, seconds: float = 100) -> None:
    """Wait until an HTTP server answers a machine."""
    until = time.monotonic() + seconds
    code = f"import urllib.request as u; u.urlopen({address!r}, timeout=3)"
    while machine.run(sys.executable, "-c", code).code:
        assert time.monotonic() < until, f"{address} does not answer"
        time.sleep(0.5)
