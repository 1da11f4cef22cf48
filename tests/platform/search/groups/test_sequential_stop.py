"""The early stop of groups: how often it is wrong, that it saves seeds, and several objectives."""

import numpy as np

from spikeseg.platform.search.groups.comparisons import Values
from spikeseg.platform.search.groups.sequential_stop import StopRule

RULE = StopRule(error=0.05, replicates=6, groups=5)


def is_stopped(data: np.ndarray, rule: StopRule) -> bool:
    """Whether group 0 of (objectives, groups, seeds) is stopped at any look."""
    for seen in range(2, rule.replicates):
        values: dict[int, list[Values]] = {
            group: [dict(enumerate(axis[group, :seen].tolist())) for axis in data]
            for group in range(data.shape[1])
        }
        if rule.find_better(0, values) is not None:
            return True
    return False


def test_an_equal_group_is_stopped_at_most_as_often_as_stated() -> None:
    generator = np.random.default_rng(0)
    wrong = sum(is_stopped(generator.normal(size=(1, 5, 6)), RULE) for _ in range(400))
    # 5 % of 400 and three standard deviations.
    assert wrong <= 20 + 3 * (400 * 0.05 * 0.95) ** 0.5


def test_a_clearly_worse_group_is_stopped_in_most_sweeps() -> None:
    generator = np.random.default_rng(1)
    shift = np.zeros((1, 5, 1))
    shift[0, 0] = -6.0
    found = sum(is_stopped(generator.normal(size=(1, 5, 6)) + shift, RULE) for _ in range(100))
    assert found > 60


def test_a_group_that_is_better_in_one_objective_goes_on() -> None:
    generator = np.random.default_rng(2)
    shift = np.zeros((2, 5, 1))
    shift[0, 0], shift[1, 0] = -9.0, 3.0
    stopped = sum(is_stopped(generator.normal(size=(2, 5, 6)) + shift, RULE) for _ in range(100))
    assert stopped <= 5


def test_one_seed_and_the_last_one_are_no_looks() -> None:
    sure = {0: [dict.fromkeys(range(6), 0.0)], 1: [dict.fromkeys(range(6), 9.0)]}
    assert RULE.find_better(0, sure) is None
    assert RULE.find_better(0, {0: [{0: 0.0}], 1: [{0: 9.0}]}) is None
    assert RULE.find_better(0, {0: [{0: 0.0, 1: 0.0}], 1: sure[1]}) == 1
