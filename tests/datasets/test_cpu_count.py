"""How many CPUs may be used: affinity and quotas, not what the machine has."""

import os
from pathlib import Path

import pytest

from spikeseg.datasets import cpu_count
from spikeseg.datasets.cpu_count import count_usable_cpus


def groups(folder: Path, lines: str, quotas: dict[str, str]) -> None:
    """A process's cgroup file, and the files of its controllers."""
    (folder / "cgroup").write_text(lines)
    for name, content in quotas.items():
        file = folder / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 CPUs, all of them in this process's affinity."""
    monkeypatch.setattr(cpu_count, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpu_count, "_MOUNT", tmp_path / "mount")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    return tmp_path


def test_affinity_counts_where_there_is_no_quota(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count_usable_cpus() == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert count_usable_cpus() == 1


@pytest.mark.parametrize(
    ("lines", "quotas", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "250000 100000", "a/cpu.max": "max 100000"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/../host\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        (
            "4:cpu,cpuacct:/job\n1:name=systemd:/x\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n"}
            | {"cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            64,
        ),
        ("no cgroup at all", {}, 64),
    ],
    ids=["v2", "of a parent", "container", "max", "v1", "v1 without", "none"],
)
def test_the_smallest_quota_counts(
    machine: Path, lines: str, quotas: dict[str, str], expected: int
) -> None:
    groups(machine, lines, quotas)
    assert count_usable_cpus() == expected


def test_affinity_below_the_quota_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(machine, "0::/\n", {"cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert count_usable_cpus() == 2
