"""Seconds of trials by T, D and size; and the budget that uses them."""

import math

import numpy as np
import pytest

from spikeseg.platform.search.study.budget import Budget
from spikeseg.platform.search.study.seconds_model import SecondsModel
from spikeseg.platform.search.study.trial_records import TrialRecord

T, D, W = "model.neuron.timesteps", "model.neuron.levels", "model.query.width"


def true_seconds(steps: int, levels: int, width: int) -> float:
    return 20.0 * steps**0.9 * levels**0.1 * (width / 64) ** 1.5


def trials(count: int, noise: float = 0.05) -> list[TrialRecord]:
    """Trials over T, D and width; every third was stopped at a quarter."""
    generator = np.random.default_rng(4)
    made = []
    for number in range(count):
        steps, levels = int(generator.choice([1, 2, 4])), int(generator.choice([1, 2, 4, 8]))
        width = int(generator.choice([64, 128]))
        share = 0.25 if number % 3 == 0 else 1.0
        seconds = true_seconds(steps, levels, width) * math.exp(generator.normal(0, noise)) * share
        made.append(
            TrialRecord(
                number,
                "PRUNED" if share < 1 else "COMPLETE",
                {T: steps, D: levels, W: width, "seed": number},
                history={int(share * 8): {}},
                seconds=seconds,
            )
        )
    return made


def test_seconds_are_predicted_from_timesteps_levels_and_size() -> None:
    model = SecondsModel(trials(24), steps=8)
    for steps, levels, width in ((1, 1, 64), (4, 8, 128), (2, 4, 64)):
        predicted = model.predict({T: steps, D: levels, W: width, "seed": 99})
        assert predicted == pytest.approx(true_seconds(steps, levels, width), rel=0.25)


def test_words_and_lists_count_too_and_what_nobody_had_is_the_mean() -> None:
    slow = [TrialRecord(n, "COMPLETE", {"kind": "slow"}, {4: {}}, 40.0) for n in range(6)]
    fast = [TrialRecord(n, "COMPLETE", {"kind": "fast"}, {4: {}}, 10.0) for n in range(6)]
    model = SecondsModel(slow + fast, steps=4)
    assert model.predict({"kind": "slow"}) > 1.8 * model.predict({"kind": "fast"})
    assert model.predict({"other": 3}) == pytest.approx(20.0, rel=0.5)
    wide = [
        TrialRecord(n, "COMPLETE", {"dims": [8 * (n % 2 + 1)] * 4}, {4: {}}, 10.0 * (n % 2 + 1))
        for n in range(12)
    ]
    model = SecondsModel(wide, steps=4)
    assert model.predict({"dims": [16] * 4}) > 1.5 * model.predict({"dims": [8] * 4})


def test_a_model_says_when_it_knows_too_little() -> None:
    assert not SecondsModel(trials(2), steps=8).is_ready
    assert SecondsModel(trials(3), steps=8).is_ready
    with pytest.raises(ValueError, match="before a trial was evaluated"):
        SecondsModel([TrialRecord(0, "RUNNING")], steps=8).predict({})


def test_a_budget_is_spent_where_the_next_trial_would_go_beyond_it() -> None:
    done = {n: TrialRecord(n, "COMPLETE", {T: 1}, history={8: {}}, seconds=10.0) for n in range(4)}
    assert not Budget(50.0, steps=8).is_spent(done), "40 spent, 10 to come"
    assert Budget(49.0, steps=8).is_spent(done)
    running = {4: TrialRecord(4, "RUNNING", {T: 1}, history={4: {}}, seconds=5.0)}
    assert Budget(55.0, steps=8).is_spent(done | running), "half of one is still to come"
    assert not Budget(61.0, steps=8).is_spent(done | running)
    assert not Budget(1.0, steps=8).is_spent({}), "the first trial always begins"
