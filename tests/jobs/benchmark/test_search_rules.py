"""Other tools' rules, by hand."""

import pytest

from spikeseg.jobs.benchmark.search_methods import SEVERAL
from spikeseg.jobs.benchmark.search_packages import SyneTuneHalving, has_syne_tune
from spikeseg.jobs.benchmark.search_rules import (
    AsyncHalving,
    MultiObjectiveHalving,
    RankMedian,
    sort_by_epsilon_net,
)


def test_async_halving_lets_the_best_quarter_of_a_rung_go_on() -> None:
    rule = AsyncHalving(4)
    # The first at a rung always goes on; 3, 5 and 4 are above the quantile of those before.
    assert [rule.go_on(n, 1, [value]) for n, value in enumerate([3.0, 5.0, 4.0, 2.0, 3.6])] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert rule.go_on(5, 2, [99.0]), "2 is no rung of r = 4"


def test_an_epsilon_net_takes_ends_before_neighbours_and_layers_in_order() -> None:
    line = [[0.0, 4.0], [0.1, 3.9], [4.0, 0.0], [2.0, 2.0], [5.0, 5.0]]
    assert sort_by_epsilon_net(line) == [0, 2, 3, 1, 4]


def test_multi_objective_halving_stops_the_crowded_and_the_dominated() -> None:
    rule = MultiObjectiveHalving(3)
    vectors = [[0.0, 4.0], [4.0, 0.0], [5.0, 5.0], [0.1, 3.9], [2.0, 2.0]]
    kept = [rule.go_on(n, 1, vector) for n, vector in enumerate(vectors)]
    assert kept == [True, True, False, False, False]
    assert rule.go_on(9, 2, [9.0, 9.0]), "2 is no rung of r = 3"


def test_rank_median_waits_and_then_stops_what_is_in_a_later_layer_than_half() -> None:
    rule = RankMedian(startup=2)
    assert rule.go_on(0, 1, [1.0, 1.0])
    assert rule.go_on(1, 1, [2.0, 2.0]), "nobody has ended"
    rule.end(0)
    rule.end(1)
    assert not rule.go_on(2, 1, [3.0, 3.0]), "layer 2 against a median of 0.5"
    assert rule.go_on(3, 1, [0.5, 9.0]), "layer 0"
    assert rule.go_on(3, 2, [0.5, 9.0])


def test_other_packages_have_rows_where_they_are_installed() -> None:
    rows = [name for name in SEVERAL if "Syne Tune's" in name]
    assert len(rows) == (2 if has_syne_tune() else 0)


@pytest.mark.skipif(not has_syne_tune(), reason="the package syne-tune is not installed")
def test_syne_tunes_own_scheduler_decides_at_its_rungs_alone() -> None:
    rule = SyneTuneHalving()
    assert rule.go_on(0, 1, [0.0, 4.0]), "the first at a rung goes on"
    kept = [rule.go_on(n, 1, [float(n), float(n)]) for n in range(1, 30)]
    assert not all(kept)
    assert rule.go_on(0, 2, [99.0, 99.0]), "2 is no rung of r = 3"
