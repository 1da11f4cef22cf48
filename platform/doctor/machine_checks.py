"""Checks of what this machine grants: CPUs, threads, files, memory, ports, folders."""

import os
import socket
import tempfile
from pathlib import Path

from ..cluster.session import check_ray_folder
from .findings import Finding, fail, format_bytes, ok, skipped, warn
from .subject import Subject

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PINNING = ("GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES")
# Measured: a local cluster's own processes hold some 900 files and 500 threads before any work.
_RAY_FILES, _WORKER_FILES = 1024, 256
_RAY_TASKS, _WORKER_TASKS = 600, 120
_LEAST_SHARED = 256 * 10**6
_LEAST_TEMPORARY = 200 * 10**6
_LEAST_MEMORY = 10**9
_LEAST_PORTS = 1000


def uses_ray(subject: Subject) -> bool:
    """Whether the work starts Ray."""
    if subject.plan is not None:
        return True
    return subject.config is not None and subject.config.trainer.workers > 0


def check_affinity(subject: Subject) -> Finding:
    """Threads that compute at once fit on the CPUs that this process may use."""
    machine = subject.machine
    threads = 1 if subject.config is None else subject.config.trainer.threads
    needed = subject.processes * threads
    seen = f"{machine.affinity} of {machine.cpus} CPUs may be used here"
    if needed > machine.affinity:
        return warn(
            f"{seen}, and {subject.processes} processes x {threads} threads compute at once",
            "fewer workers, trials at once or trainer.threads; or a wider taskset / Slurm request",
        )
    return ok(f"{seen}, {needed} threads compute at once")


def check_cpu_quota(subject: Subject) -> Finding:
    """The cgroup's quota leaves as many CPUs as the affinity shows."""
    machine = subject.machine
    if machine.usable_cpus >= machine.affinity:
        return ok("no quota below the CPUs that may be used")
    return warn(
        f"the cgroup's quota leaves {machine.usable_cpus} of {machine.affinity} CPUs: more threads "
        "are put to sleep in the middle of a step",
        "raise the container's CPU limit, or take as many workers and threads as the quota",
    )


def check_thread_settings(subject: Subject) -> Finding:
    """Variables that set threads and pin them are numbers, and pin workers nowhere together."""
    for name in _THREADS:
        value = subject.environment.get(name)
        if value is not None and not all(part.strip().isdigit() for part in value.split(",")):
            return warn(f"{name}={value!r} is no number", f"unset {name}, or set it to 1")
    for name in _THREADS:
        value = subject.environment.get(name, "")
        if value.isdigit() and int(value) > subject.machine.usable_cpus:
            return warn(
                f"{name}={value}, and {subject.machine.usable_cpus} CPUs may be used",
                f"unset {name}: trainer.threads is set by itself",
            )
    pinned = [name for name in _PINNING if subject.environment.get(name)]
    if pinned and subject.processes > 1:
        return warn(
            f"{', '.join(pinned)} is set: {subject.processes} processes would be pinned to the "
            "same CPUs",
            f"unset {' '.join(pinned)}",
        )
    return ok("trainer.threads decides, no variable is in its way")


def check_open_files(subject: Subject) -> Finding:
    """Files that may be open at once are enough for Ray and its workers."""
    limit = subject.machine.open_files
    needed = 256
    if uses_ray(subject):
        needed = _RAY_FILES + _WORKER_FILES * subject.processes
    if limit < needed // 4:
        return fail(f"{limit} files may be open, some {needed} are needed", "ulimit -n 65536")
    if limit < needed:
        return warn(f"{limit} files may be open, some {needed} are needed", "ulimit -n 65536")
    return ok(f"{limit} files may be open")


def check_task_limit(subject: Subject) -> Finding:
    """Threads that this user and this cgroup may still start are enough."""
    machine = subject.machine
    needed = 50
    if uses_ray(subject):
        needed = _RAY_TASKS + _WORKER_TASKS * subject.processes
    limits = [value for value in (machine.tasks, machine.group_tasks) if value is not None]
    if not limits:
        return ok("no limit on processes and threads")
    left = min(limits) - (machine.running_tasks or 0)
    seen = f"{max(0, left)} more processes and threads may be started, some {needed} are needed"
    remedy = "ulimit -u 65536; in a container raise its limit on pids"
    if left < needed // 4:
        return fail(seen, remedy)
    return warn(seen, remedy) if left < needed else ok(seen)


def check_shared_memory(subject: Subject) -> Finding:
    """/dev/shm has room for Ray's object store."""
    free = subject.machine.shared_memory
    if free is None:
        return skipped("there is no /dev/shm")
    if not uses_ray(subject):
        return ok(f"/dev/shm: {format_bytes(free)} free")
    if free < _LEAST_SHARED:
        return warn(
            f"/dev/shm: {format_bytes(free)} free; Ray's object store would lie on the disk",
            "start the container with --shm-size=4g",
        )
    return ok(f"/dev/shm: {format_bytes(free)} free")


def check_memory_limit(subject: Subject) -> Finding:
    """The cgroup's memory limit leaves room beside what is in use."""
    limit, used = subject.machine.memory_limit, subject.machine.memory_used or 0
    if limit is None:
        return ok("no memory limit of a cgroup")
    left = limit - used
    seen = f"the cgroup allows {format_bytes(limit)}, {format_bytes(max(0, left))} are left"
    needed = _LEAST_MEMORY * subject.processes
    if left < needed // 2:
        return fail(seen, "raise the container's or the job's memory (docker -m, sbatch --mem)")
    if left < needed:
        return warn(seen, "raise the container's or the job's memory, or take fewer workers")
    return ok(seen)


def check_huge_pages(subject: Subject) -> Finding:
    """The kernel gives huge pages to who asks for them, as workers do."""
    mode = subject.machine.huge_pages
    if mode is None:
        return skipped("this kernel does not say whether it has transparent huge pages")
    if mode == "never":
        return warn(
            "transparent huge pages are off: a small network's step takes more page faults",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root",
        )
    if "GLIBC_TUNABLES" in subject.environment:
        wanted = "hugetlb=1" in subject.environment["GLIBC_TUNABLES"]
        if not wanted:
            return warn(
                "GLIBC_TUNABLES is set and asks for no huge pages",
                "add glibc.malloc.hugetlb=1 to it, or unset it",
            )
    return ok(f"transparent huge pages: {mode}")


def check_temporary_folder(subject: Subject) -> Finding:
    """The folder for temporary files can be written and has room."""
    named = subject.environment.get("TMPDIR")
    folder = Path(named or tempfile.gettempdir())
    remedy = "set TMPDIR to a folder with room that this user can write"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        status = os.statvfs(folder)
    except OSError as error:
        return fail(f"{folder}: cannot be written ({error.strerror})", remedy)
    free = status.f_bavail * status.f_frsize
    if free < _LEAST_TEMPORARY:
        return warn(f"{folder}: {format_bytes(free)} free", remedy)
    return ok(f"{folder}: {format_bytes(free)} free")


def check_sockets(subject: Subject) -> Finding:
    """Ray's folder belongs to this user, and its path is short enough for sockets."""
    try:
        folder = check_ray_folder()
    except ValueError as error:
        return fail(str(error), "set RAY_TMPDIR to a folder of yours with a short path")
    return ok(f"{folder}")


def check_ports(subject: Subject) -> Finding:
    """Ports can be opened on loopback, and the system has enough to choose from."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            probe.listen()
            with socket.create_connection(probe.getsockname(), timeout=5):
                pass
    except OSError as error:
        return fail(
            f"no connection within this machine: {error.strerror}",
            "see that the interface lo is up, and that no firewall rule is about it",
        )
    count = subject.machine.ports
    if count is not None and count < _LEAST_PORTS:
        return warn(
            f"the system chooses from {count} ports, and Ray takes some 20 a worker",
            "widen net.ipv4.ip_local_port_range",
        )
    return ok(f"loopback answers; {count or 'unknown'} ports to choose from")
