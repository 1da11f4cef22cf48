"""CPUs that this process may use, which are often fewer than the machine has."""

import os
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def count_usable_cpus() -> int:
    """CPUs of this process: what its affinity and the quotas of its cgroups leave, at least 1.

    Slurm and taskset set the affinity, containers a quota; the machine's number is neither's.
    """
    cpus = float(len(os.sched_getaffinity(0)))
    quota = _read_quota(_GROUPS, _MOUNT)
    return max(1, int(cpus if quota is None else min(cpus, quota)))


def _read_quota(groups: Path, mount: Path) -> float | None:
    """Smallest quota, in CPUs, of this process's cgroup and those above it; None for none."""
    quotas = []
    for line in _read(groups).splitlines():
        controllers, path = line.split(":", 2)[1:] if line.count(":") >= 2 else ("-", "")
        if controllers == "":
            root = mount
        elif "cpu" in controllers.split(","):
            root = mount / controllers
            root = root if root.is_dir() else mount / "cpu"
        else:
            continue
        # In a container the path may be that of the host, and only the root is mounted.
        here = root / path.strip("/")
        for folder in (here, *here.parents):
            quotas.append(_quota_of(folder))
            if folder == root:
                break
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    if not words:
        words = [*_read(folder / "cpu.cfs_quota_us").split()]
        words += _read(folder / "cpu.cfs_period_us").split()
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # `max`, or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
