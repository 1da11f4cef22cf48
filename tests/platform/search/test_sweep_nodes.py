"""Sweeps on a cluster of two nodes: trials on both, a node that is lost, storage that one lacks."""

import os
import random
import time
from pathlib import Path

import optuna
import pytest
from nodes import Nodes
from toy_sweep import check_sweep, listed, run_toys, toy_plan
from toy_trials import toy_of_a_node

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEED = int(os.environ.get("SPIKESEG_CRASH_SEED", time.time_ns() % 1_000_000))


def nodes_of(folder: Path, number: int) -> list[str]:
    """Nodes of a trial's attempts."""
    return (folder / "trials" / str(number) / "nodes").read_text().split()


def test_trials_run_on_both_nodes_and_go_on_where_one_is_lost(
    nodes: Nodes, data: Path, tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    generator = random.Random(SEED)
    plan = toy_plan(tmp_path, steps=8, **listed(4, 1, 8, 2))
    after = generator.randrange(2, 8)
    told = 0

    def losing(line: str) -> None:
        nonlocal told
        told += line.startswith("trial")
        if told == after and len(nodes.workers) == 2:
            nodes.lose(generator)

    outcome = run_toys(
        data, tmp_path, losing, name="toy", here=False, work=toy_of_a_node, concurrency=2
    )
    assert len(nodes.workers) == 1, "the node was lost in the middle"
    assert outcome.counts == {"COMPLETE": 4}
    folder = outcome.folder
    stored = optuna.load_study(study_name="toy", storage=f"sqlite:///{folder / 'study.db'}")
    check_sweep(plan, folder, stored)
    first, second = nodes_of(folder, 0), nodes_of(folder, 1)
    assert first[0] != second[0], "one trial on each node"
    went_on = [len(nodes_of(folder, number)) for number in range(4)]
    assert sorted(went_on) == [1, 1, 1, 2], "what ran on the lost node went on, nothing else did"
    assert first[-1] == second[-1], "on the node that was left"


def test_storage_that_a_node_does_not_see_is_refused_before_anything_is_made(
    nodes: Nodes, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del nodes
    toy_plan(tmp_path, **listed(4))
    monkeypatch.chdir(tmp_path)
    # Every process has its own folder there, as nodes without a shared file system have.
    storage = Path("/proc/self/cwd")
    with pytest.raises(
        ValueError, match=r"storage /proc/self/cwd: node \S+ \(\w+\) does not see it"
    ):
        run_toys(data, storage, name="toy", here=False)
    assert not (tmp_path / "toy").exists()
    assert not list(tmp_path.glob(".probe-*"))
