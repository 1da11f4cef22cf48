"""Where the workers of a training meet and listen: a private file, or their nodes' addresses.

torch's store asks for no secret, so whoever reaches it can write into a training. Workers of one
machine therefore meet in a file that only their user can open, and listen on loopback.
"""

import contextlib
import os
import shutil
import socket
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import torch.distributed
from torch.distributed import FileStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from .loopback import interface_of

_LOOPBACK = "127.0.0.1"
_FILE = "file://"
# Which network interface each of torch's backends listens on.
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
# The server of the worker that opened the store; it lives as long as the reference.
_served: list[TCPStore] = []


def open_store(host: str | None, *, timeout_s: float) -> str:
    """Open the store of a new group of workers, on the worker with rank 0.

    Args:
        host: Address of this worker's node; None where all workers are on this machine.
        timeout_s: Seconds that a worker waits for another.

    Returns:
        Where the others find it: file:///FOLDER/store or tcp://HOST:PORT.

    Raises:
        OSError: Where this machine cannot listen on the address.
    """
    if host is None:
        # Readable by this user alone.
        return f"{_FILE}{tempfile.mkdtemp(prefix='spikeseg-workers-')}/store"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError as error:
        raise OSError(
            error.errno,
            f"this node's address {host} is none of its own ({error.strerror}); start its Ray with "
            "--node-ip-address of a network interface",
        ) from error
    port = listener.getsockname()[1]
    # torch itself would listen on every interface.
    server = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=listener.detach(),
    )
    _served[:] = [server]
    return f"tcp://[{host}]:{port}" if family == socket.AF_INET6 else f"tcp://{host}:{port}"


class Seat(NamedTuple):
    """A worker's place in a group.

    Attributes:
        backend: `gloo` or `nccl`.
        rank: Of this worker.
        size: Number of workers.
        host: Address of this worker's node; None where all workers are on this machine.
        timeout_s: Seconds that an operation of the group may take.
    """

    backend: str
    rank: int
    size: int
    host: str | None
    timeout_s: float


def join_workers(address: str, seat: Seat) -> None:
    """Open torch's default process group.

    Args:
        address: What `open_store` returned.
        seat: Of this worker.
    """
    _choose_interface(seat.host)
    timeout = timedelta(seconds=seat.timeout_s)
    if address.startswith(_FILE):
        store = FileStore(address.removeprefix(_FILE), seat.size)
    elif seat.rank == 0:
        store = _served[0]
    else:
        place = urlsplit(address)
        assert place.hostname is not None and place.port is not None
        store = TCPStore(place.hostname, place.port, is_master=False, timeout=timeout)
    torch.distributed.init_process_group(
        seat.backend, store=store, rank=seat.rank, world_size=seat.size, timeout=timeout
    )


def remove_store(address: str) -> None:
    """Remove the file of a store; gloo needs it no more once all workers have joined."""
    if address.startswith(_FILE):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(Path(address.removeprefix(_FILE)).parent)


def _choose_interface(host: str | None) -> None:
    """Have torch's backends listen on one network interface."""
    name = interface_of(host or _LOOPBACK)
    if name is None:
        return
    for variable in _INTERFACES:
        if host is None:
            os.environ[variable] = name
        else:
            # Who administers a cluster may know a faster one.
            os.environ.setdefault(variable, name)
