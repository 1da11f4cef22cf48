"""Room that a cluster may grow to is waited for, and refused after a limit."""

from collections.abc import Sequence
from typing import Any

import pytest

from spikeseg.platform.cluster import room
from spikeseg.platform.cluster.room import Nodes, starts_machines, wait_for_room

Patch = pytest.MonkeyPatch


class Cluster:
    """A cluster whose nodes are those of a list, one more at each look."""

    def __init__(self, patch: Patch, looks: Sequence[int]) -> None:
        self.looks = list(looks)
        self.demands: list[Any] = []
        patch.setattr(room, "_read_nodes", self.read)
        patch.setattr(room, "_ask_for", self.demands.append)
        patch.setattr(room, "_read_groups", list)
        patch.setattr(room, "_EVERY_S", 0.0)
        patch.setattr(room, "_has_autoscaler", lambda: False)
        patch.setattr(room, "_is_infeasible", lambda count: False)

    def read(self) -> list[dict[str, float]]:
        count = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [{"CPU": 4.0}] * count


def need(cpus: float) -> Any:
    def fit(nodes: Nodes) -> int:
        offered = sum(node.get("CPU", 0.0) for node in nodes)
        if offered < cpus:
            raise ValueError(f"needs {cpus:g}, has {offered:g}")
        return len(nodes)

    return fit


def test_what_fits_now_is_not_waited_for(monkeypatch: Patch) -> None:
    cluster = Cluster(monkeypatch, [2])
    assert wait_for_room(need(8), [{"CPU": 1}] * 8, tell=pytest.fail) == 2
    assert not cluster.demands


def test_room_is_waited_for_with_a_line_and_asked_for(monkeypatch: Patch) -> None:
    cluster = Cluster(monkeypatch, [1, 1, 2, 3])
    monkeypatch.setenv("SPIKESEG_MAX_NODES", "3")
    lines: list[str] = []
    assert wait_for_room(need(12), [{"CPU": 6}] * 2, tell=lines.append) == 3
    assert lines == ["no room yet, waiting up to 900 s for the cluster to grow (needs 12, has 4)"]
    assert cluster.demands == [[{"CPU": 6}] * 2, []], "the wish is taken back"


def test_a_cluster_that_does_not_grow_in_time_is_refused(monkeypatch: Patch) -> None:
    cluster = Cluster(monkeypatch, [1])
    monkeypatch.setenv("SPIKESEG_MAX_NODES", "3")
    monkeypatch.setenv("SPIKESEG_ROOM_TIMEOUT_S", "0")
    with pytest.raises(ValueError, match=r"has not grown within 0 s .*needs 12, has 4"):
        wait_for_room(need(12), [], tell=lambda line: None)
    assert cluster.demands[-1] == []


def test_more_than_it_may_grow_to_is_refused_at_once(monkeypatch: Patch) -> None:
    cluster = Cluster(monkeypatch, [1])
    monkeypatch.setenv("SPIKESEG_MAX_NODES", "2")
    with pytest.raises(ValueError, match="needs 12, has 8"):
        wait_for_room(need(12), [], tell=pytest.fail)
    monkeypatch.delenv("SPIKESEG_MAX_NODES")
    with pytest.raises(ValueError, match="needs 12, has 4"):
        wait_for_room(need(12), [], tell=pytest.fail)
    assert not cluster.demands


def test_the_clusters_own_report_says_what_it_may_grow_to(monkeypatch: Patch) -> None:
    Cluster(monkeypatch, [1, 3])
    monkeypatch.setattr(room, "_read_groups", lambda: [{"CPU": 4.0}] * 2)
    assert wait_for_room(need(12), [], tell=lambda line: None) == 3


def test_an_autoscaler_that_does_not_say_how_far_is_asked_and_waited_for(
    monkeypatch: Patch,
) -> None:
    cluster = Cluster(monkeypatch, [1, 2, 3])
    monkeypatch.setattr(room, "_has_autoscaler", lambda: True)
    lines: list[str] = []
    assert wait_for_room(need(12), [{"CPU": 4}] * 3, tell=lines.append) == 3
    assert len(lines) == 1
    assert cluster.demands == [[{"CPU": 4}] * 3, []]


def test_what_the_autoscaler_calls_infeasible_is_refused_at_once(monkeypatch: Patch) -> None:
    cluster = Cluster(monkeypatch, [1])
    asked: list[int] = []
    monkeypatch.setattr(room, "_has_autoscaler", lambda: True)
    monkeypatch.setattr(room, "_is_infeasible", lambda count: not asked.append(count))
    with pytest.raises(ValueError, match=r"cannot grow so far, says its autoscaler: needs 12"):
        wait_for_room(need(12), [{"CPU": 4}] * 3, tell=lambda line: None)
    assert asked == [3]
    assert cluster.demands[-1] == [], "the wish is taken back"


@pytest.mark.parametrize(
    ("report", "starts"),
    [
        ({"node_type_mapping": {"ff0": "node_ff0", "ff1": "node_ff1"}}, False),
        ({"node_type_mapping": {"ff0": "ray.head.default"}}, True),
        ({"node_type_mapping": {"ff0": "node_ff0", "ff1": "small"}}, True),
        ({"node_type_mapping": {}}, False),
        ({}, False),
        (None, False),
        ("no report", False),
    ],
)
def test_a_head_without_a_configuration_starts_no_machines(report: object, starts: bool) -> None:
    assert starts_machines(report) is starts


@pytest.mark.parametrize("value", ["many", "0", "-1"])
def test_a_wrong_number_of_nodes_is_refused(monkeypatch: Patch, value: str) -> None:
    Cluster(monkeypatch, [1])
    monkeypatch.setenv("SPIKESEG_MAX_NODES", value)
    with pytest.raises(ValueError, match="SPIKESEG_MAX_NODES: must be a number of nodes"):
        wait_for_room(need(12), [], tell=pytest.fail)
