"""Workers of one machine meet in a private file; those of several listen on their nodes."""

import multiprocessing
import os
import socket
import stat
from multiprocessing.queues import Queue
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed
from listening import listening

from spikeseg.platform.cluster.loopback import is_loopback
from spikeseg.platform.cluster.worker_network import Seat, join_workers, open_store, remove_store


def work(rank: int, host: str | None, meeting: "Queue[str]", results: "Queue[list[str]]") -> None:
    """One of two workers: meet, add up, tell who listens where."""
    os.environ["GLOO_SOCKET_IFNAME"] = "none-of-these"
    if host is not None:
        # Of several machines the administrator's choice is kept; here it must be one that exists.
        del os.environ["GLOO_SOCKET_IFNAME"]
    if rank == 0:
        meeting.put(open_store(host, timeout_s=20))
    address = meeting.get()
    meeting.put(address)
    join_workers(address, Seat("gloo", rank, 2, host, 20))
    torch.distributed.barrier()
    if rank == 0:
        remove_store(address)
    total = torch.tensor([rank + 1.0])
    torch.distributed.all_reduce(total)
    assert total.item() == 3
    results.put([address, *sorted({one.host for one in listening(os.getpid())})])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def meet(host: str | None) -> list[list[str]]:
    context = multiprocessing.get_context("fork")
    meeting, results = context.Queue(), context.Queue()
    workers = [
        context.Process(target=work, args=(rank, host, meeting, results)) for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    told = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    return told


def test_workers_of_one_machine_meet_in_a_file_and_listen_on_loopback() -> None:
    for address, *hosts in meet(None):
        assert hosts == ["127.0.0.1"]
        assert address.startswith("file://")
        assert not Path(address.removeprefix("file://")).parent.exists(), "it was removed"


def test_the_file_where_they_meet_is_private() -> None:
    address = open_store(None, timeout_s=1)
    folder = Path(address.removeprefix("file://")).parent
    try:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        remove_store(address)
    assert not folder.exists()
    remove_store(address)


def test_workers_of_several_machines_listen_on_the_nodes_address_alone() -> None:
    everywhere = [one for addresses in psutil.net_if_addrs().values() for one in addresses]
    outside = [
        one.address
        for one in everywhere
        if one.family == socket.AF_INET and not is_loopback(one.address)
    ]
    if not outside:
        pytest.skip("this machine has no IPv4 address but loopback")
    for address, *hosts in meet(outside[0]):
        assert hosts == [outside[0]]
        assert address.startswith(f"tcp://{outside[0]}:")


def test_an_address_that_is_none_of_the_machines_is_told() -> None:
    with pytest.raises(OSError, match=r"node's address 192\.0\.2\.77 is none of its own"):
        open_store("192.0.2.77", timeout_s=1)
