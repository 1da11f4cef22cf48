"""What a command and all that it starts listen on, read from /proc while it runs."""

import contextlib
import ipaddress
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_LISTENING = "0A"
_MARK = "SPIKESEG_TEST_TREE"


class Socket(NamedTuple):
    """A TCP socket that listens.

    Attributes:
        process: First words of the command line of who holds it.
        host: Address that it is bound to.
    """

    process: str
    host: str

    @property
    def is_loopback(self) -> bool:
        address = ipaddress.ip_address(self.host)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback


def listening(root: int, mark: str | None = None) -> set[Socket]:
    """Sockets on which a process and its descendants listen.

    Args:
        root: Process id.
        mark: Text in the environment of processes that count as well, whoever their parent is.
    """
    hosts = _listening_hosts()
    found = set()
    for process in _tree(root, mark):
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    host = hosts.get(os.readlink(handle))
                    if host is not None:
                        found.add(Socket(_describe(process), host))
    return found


def run_and_listen(
    command: Sequence[str], environment: Mapping[str, str], *, timeout: float = 400
) -> tuple[subprocess.CompletedProcess[str], set[Socket]]:
    """Run a command to its end, looking 20 times a second at what it listens on."""
    mark = f"{_MARK}={uuid.uuid4().hex}"
    variables = {**environment, _MARK: mark.partition("=")[2]}
    found: set[Socket] = set()
    deadline = time.monotonic() + timeout
    # In a file: a pipe that nobody reads meanwhile would stop the command.
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(
            command, env=variables, stdout=output, stderr=subprocess.STDOUT
        ) as process:
            while process.poll() is None:
                found |= listening(process.pid, mark)
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.05)
        output.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, output.read()), found


def _listening_hosts() -> dict[str, str]:
    """Link of each listening socket, as /proc/PID/fd shows it -> its address."""
    hosts = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENING:
                digits = words[1].partition(":")[0]
                # Four bytes at a time, in the processor's own order.
                raw = b"".join(
                    int(digits[i : i + 8], 16).to_bytes(4, "little")
                    for i in range(0, len(digits), 8)
                )
                hosts[f"socket:[{words[9]}]"] = str(ipaddress.ip_address(raw))
    return hosts


def _tree(root: int, mark: str | None) -> Iterator[int]:
    """The process, its descendants, and whoever has the mark in its environment."""
    parents, marked = {}, set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                number = int(folder.name)
                parents[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if mark and mark.encode() in (folder / "environ").read_bytes():
                    marked.add(number)
    for number in parents:
        ancestor = number
        while ancestor not in marked and ancestor != root and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in marked or ancestor == root:
            yield number


def _describe(process: int) -> str:
    words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    # Of a path its last part: an environment may lie anywhere.
    return " ".join(word.rpartition("/")[2] for word in words).strip()[:80]
