"""What this machine grants to a process: limits, memory, CPUs; read once for all checks."""

import os
import resource
import shutil
from pathlib import Path
from typing import NamedTuple

from ...datasets.cpu_count import count_usable_cpus

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
# A cgroup without a limit says `max`, or in version 1 a number near 2 ** 63.
_UNLIMITED = 1 << 60


class Machine(NamedTuple):
    """Readings of this machine; None where the system does not tell.

    Attributes:
        cpus: CPUs of the machine.
        usable_cpus: CPUs that affinity and quota leave to this process, at least 1.
        affinity: CPUs that this process may be scheduled on.
        available: Bytes of memory that can be had without swapping.
        memory_limit: Bytes that the cgroup allows.
        memory_used: Bytes of the cgroup in use.
        open_files: Soft limit of open files.
        tasks: Processes and threads that this user may have.
        group_tasks: Processes and threads that the cgroup may have.
        running_tasks: Threads of this user now.
        shared_memory: Free bytes of /dev/shm.
        huge_pages: Mode of transparent huge pages: `always`, `madvise` or `never`.
        ports: Number of ports that the system chooses from.
        gpu_devices: Whether there are device files of NVIDIA GPUs.
    """

    cpus: int
    usable_cpus: int
    affinity: int
    available: int | None
    memory_limit: int | None
    memory_used: int | None
    open_files: int
    tasks: int | None
    group_tasks: int | None
    running_tasks: int | None
    shared_memory: int | None
    huge_pages: str | None
    ports: int | None
    gpu_devices: bool


def read_machine() -> Machine:
    """Read the limits of this process and the room on this machine."""
    soft_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft_tasks, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return Machine(
        cpus=os.cpu_count() or 1,
        usable_cpus=count_usable_cpus(),
        affinity=len(os.sched_getaffinity(0)),
        available=_read_available(),
        memory_limit=_read_group_limit("memory.max", "memory/memory.limit_in_bytes"),
        memory_used=_read_group_limit("memory.current", "memory/memory.usage_in_bytes"),
        open_files=soft_files if soft_files != resource.RLIM_INFINITY else _UNLIMITED,
        tasks=soft_tasks if soft_tasks != resource.RLIM_INFINITY else None,
        group_tasks=_read_group_limit("pids.max", "pids/pids.max"),
        running_tasks=_count_tasks(),
        shared_memory=_read_free(Path("/dev/shm")),
        huge_pages=_read_huge_pages(),
        ports=_count_ports(),
        gpu_devices=Path("/dev/nvidiactl").exists(),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_available() -> int | None:
    for line in _read(_PROC / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _read_group_limit(unified: str, legacy: str) -> int | None:
    """Smallest value of a file over this process's cgroup and those above it."""
    folders = [_CGROUPS]
    for line in _read(_PROC / "self" / "cgroup").splitlines():
        if line.startswith("0::"):
            here = _CGROUPS / line[3:].strip("/")
            folders = [here, *(p for p in here.parents if p.is_relative_to(_CGROUPS))]
    values = [_read(folder / unified).strip() for folder in folders]
    values.append(_read(_CGROUPS / legacy).strip())
    numbers = [int(value) for value in values if value.isdigit() and int(value) < _UNLIMITED]
    return min(numbers, default=None)


def _count_tasks() -> int | None:
    """Threads of this user's processes, which the limit on processes counts."""
    count = 0
    try:
        for entry in _PROC.iterdir():
            if entry.name.isdigit() and _is_mine(entry):
                status = _read(entry / "status").partition("\nThreads:")[2]
                count += int(status.split()[0]) if status else 0
    except OSError:
        return None
    return count


def _is_mine(entry: Path) -> bool:
    try:
        return entry.stat().st_uid == os.getuid()
    except OSError:
        return False


def _read_free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _read_huge_pages() -> str | None:
    text = _read(_HUGE_PAGES)
    return text.partition("[")[2].partition("]")[0] or None


def _count_ports() -> int | None:
    words = _read(_PORTS).split()
    return int(words[1]) - int(words[0]) + 1 if len(words) == 2 else None
