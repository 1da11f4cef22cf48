"""Pruning rules on numbers that can be checked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeseg.platform.search.study.pareto import crowding, dominates
from spikeseg.platform.search.study.pruners import Halving, Median, NonDominated
from spikeseg.platform.search.sweep_file.schema import geometric_rungs


def test_halving_lets_the_best_half_go_on() -> None:
    rule = Halving(eta=2, minimum=3)
    others = [(1.0,), (2.0,), (3.0,)]
    assert rule.judge((0.5,), others).go_on
    assert rule.judge((1.5,), others).go_on, "1 of 4 is better, 2 places"
    judged = rule.judge((2.5,), others)
    assert not judged.go_on
    assert judged.reason == "2 of 4 better at the rung, 2 go on"


def test_halving_lets_everyone_go_on_below_its_minimum() -> None:
    judged = Halving(eta=2, minimum=3).judge((9.0,), [(1.0,)])
    assert judged.go_on
    assert judged.reason == "2 values at the rung, 3 needed"


def test_halving_by_three_keeps_a_third() -> None:
    rule = Halving(eta=3, minimum=2)
    others = [(float(n),) for n in range(8)]
    assert rule.judge((1.5,), others).go_on
    assert not rule.judge((2.5,), others).go_on


def test_equal_values_do_not_stop_each_other() -> None:
    assert Halving(eta=2, minimum=2).judge((1.0,), [(1.0,)] * 9).go_on


def test_median_stops_what_is_worse_than_the_others_median() -> None:
    rule = Median(minimum=3)
    others = [(-50.0,), (-40.0,), (-30.0,)]
    assert rule.judge((-40.0,), others).go_on
    judged = rule.judge((-39.0,), others)
    assert not judged.go_on
    assert judged.reason == "39 against a median of 40 at the rung"


def test_the_only_value_at_a_rung_is_never_stopped_by_its_median() -> None:
    assert Median(minimum=2).judge((5.0,), []).go_on


def test_non_domination_keeps_the_first_layer_and_stops_the_last() -> None:
    rule = NonDominated(eta=2, minimum=3, by_crowding=False)
    front = [(1.0, 3.0), (3.0, 1.0)]
    assert rule.judge((2.0, 2.0), [*front, (4.0, 4.0)]).go_on, "on the front itself"
    judged = rule.judge((4.0, 4.0), [*front, (2.0, 2.0)])
    assert not judged.go_on
    assert judged.reason == "3 of 4 ahead at the rung, 2 go on"


def test_without_crowding_a_wide_front_goes_on_whole() -> None:
    front = [(float(n), float(9 - n)) for n in range(10)]
    rule = NonDominated(eta=2, minimum=3, by_crowding=False)
    assert all(rule.judge(v, [o for o in front if o != v]).go_on for v in front)


def test_with_crowding_a_wide_front_is_thinned_out_and_keeps_its_ends() -> None:
    front = [(0.0, 9.0), (1.0, 8.0), (1.1, 7.9), (1.2, 7.8), (1.3, 7.7), (9.0, 0.0)]
    rule = NonDominated(eta=2, minimum=3, by_crowding=True)
    kept = [v for v in front if rule.judge(v, [o for o in front if o != v]).go_on]
    assert front[0] in kept and front[-1] in kept
    assert len(kept) < len(front)


@pytest.mark.parametrize(
    ("every", "last", "eta", "rungs"),
    [(10, 80, 2, [10, 20, 40]), (10, 90, 3, [10, 30]), (60, 60, 2, []), (5, 6, 4, [5])],
)
def test_rungs_grow_geometrically_below_the_full_budget(
    every: int, last: int, eta: int, rungs: list[int]
) -> None:
    assert geometric_rungs(every, last, eta) == rungs


def test_constraints_come_before_objectives_in_every_rule() -> None:
    best, worst = (0.0, 0.0), (9.0, 9.0)
    for rule in (
        Halving(eta=2, minimum=2),
        NonDominated(eta=2, minimum=2, by_crowding=True),
        Median(minimum=2),
    ):
        assert not rule.judge(best, [], ahead=3).go_on, rule
        assert rule.judge(worst, [], behind=3).go_on, rule
        assert rule.judge(best, [worst], ahead=1, behind=1).go_on, rule
        assert not rule.judge(worst, [best], ahead=2).go_on, rule


def test_a_median_says_what_constraints_made_of_it() -> None:
    rule = Median(minimum=2)
    assert rule.judge((1.0,), [], ahead=2).reason == (
        "the median at the rung keeps the constraints better"
    )
    assert rule.judge((1.0,), [], behind=2).reason == (
        "the median at the rung breaks the constraints by more"
    )
    judged = rule.judge((3.0,), [(1.0,), (2.0,)], behind=1)
    assert (judged.go_on, judged.reason) == (False, "3 against a median of 2 at the rung")


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30),
    st.integers(0, 3),
    st.integers(0, 3),
    st.booleans(),
)
def test_rank_is_what_is_in_layers_before_and_less_crowded_in_the_own(
    vectors: list[tuple[int, int]], ahead: int, behind: int, by_crowding: bool
) -> None:
    """Counted by the definition, over vectors of which many are equal."""
    rule = NonDominated(eta=2, minimum=1, by_crowding=by_crowding)
    left, rank = list(range(len(vectors))), ahead
    while True:
        layer = [i for i in left if not any(dominates(vectors[j], vectors[i]) for j in left)]
        if 0 in layer:
            break
        rank += len(layer)
        left = [i for i in left if i not in layer]
    if by_crowding:
        distances = crowding([vectors[i] for i in layer])
        rank += sum(other > distances[layer.index(0)] for other in distances)
    total = ahead + len(vectors) + behind
    judged = rule.judge(vectors[0], vectors[1:], ahead=ahead, behind=behind)
    places = max(1, total // 2)
    assert judged.reason == f"{rank} of {total} ahead at the rung, {places} go on"
    assert judged.go_on == (rank < places)
