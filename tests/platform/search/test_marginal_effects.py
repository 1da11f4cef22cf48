"""Means at each value of a parameter with intervals, their range, and importance beside them."""

import pytest

from spikeseg.platform.search.marginal_effects import (
    choose_importances,
    measure_marginal_effects,
    rank_effects,
    why_no_importance,
)
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_file.schema import Objective

UP = Objective(metric="val/mIoU", direction="maximize")
DOWN = Objective(metric="energy/mJ", direction="minimize")


def record(number: int, value: float, original: int | None = None, **point: object) -> TrialRecord:
    return TrialRecord(number, "COMPLETE", dict(point), values=(value,), original=original)


def test_a_value_s_mean_counts_each_configuration_once() -> None:
    records = {
        0: record(0, 10.0, d=1),
        1: record(1, 20.0, d=1),
        2: record(2, 40.0, 1, d=1),
        3: record(3, 7.0, d=2),
        4: TrialRecord(4, "PRUNED", {"d": 2}),
    }
    rows = measure_marginal_effects(records, ["d"], [UP])
    assert [(row["value"], row["configurations"]) for row in rows] == [(1, 2), (2, 1)]
    assert rows[0]["val/mIoU"] == 20.0, "30 of two seeds, and 10"
    assert rows[0]["val/mIoU low"] == pytest.approx(20.0 - 12.7062 * 10.0, abs=1e-2)
    assert rows[1]["val/mIoU low"] is None


def test_many_numbers_are_put_into_quarters_and_words_stay() -> None:
    records = {n: record(n, float(n), rate=n / 20, word="xy"[n % 2]) for n in range(20)}
    rows = measure_marginal_effects(records, ["rate", "word", "absent"], [UP])
    assert [row["configurations"] for row in rows if row["key"] == "rate"] == [5, 5, 5, 5]
    assert [row["value"] for row in rows if row["key"] == "word"] == ["x", "y"]
    means = [row["val/mIoU"] for row in rows if row["key"] == "rate"]
    assert means == sorted(means)


def test_an_effect_is_the_range_of_means_and_the_largest_comes_first() -> None:
    records = {
        n: TrialRecord(n, "COMPLETE", {"T": t, "D": d}, values=(20.0 + 2 * t + d, 0.02 * t))
        for n, (t, d) in enumerate([(1, 4), (1, 14), (2, 4), (2, 14)])
    }
    rows = measure_marginal_effects(records, ["T", "D"], [UP, DOWN])
    miou, energy = rank_effects(rows, "val/mIoU"), rank_effects(rows, "energy/mJ")
    assert [(item.key, item.effect) for item in miou] == [("D", 10.0), ("T", 2.0)]
    assert energy[0].key == "T" and energy[0].effect == pytest.approx(0.02)
    assert [(row["value"], row["val/mIoU"]) for row in miou[0].rows] == [(4, 27.0), (14, 37.0)]


def test_a_configuration_trained_thrice_moves_an_effect_no_more_than_another() -> None:
    records = {0: record(0, 10.0, d=1), 1: record(1, 20.0, d=1), 2: record(2, 30.0, d=2)}
    records |= {n: record(n, 20.0, 1, d=1) for n in (3, 4)}
    (effect,) = rank_effects(measure_marginal_effects(records, ["d"], [UP]), "val/mIoU")
    assert effect.effect == 15.0, "and not 12.5, the mean over trainings"


def test_values_that_were_tried_once_have_no_effect_and_come_last() -> None:
    records = {n: record(n, 10.0 * n, rate=float(n), d=n % 2) for n in range(4)}
    effects = rank_effects(measure_marginal_effects(records, ["rate", "d"], [UP]), "val/mIoU")
    assert [(item.key, item.effect) for item in effects] == [("d", 10.0), ("rate", None)]


def test_a_value_that_keeps_a_network_from_learning_does_not_look_harmless() -> None:
    blind = {"val/mIoU": 8.0, "val/baseline_majority": 7.8, "val/baseline_position": 8.1}
    records = {0: record(0, 30.0, d=4), 1: record(1, 32.0, d=4), 2: record(2, 8.0, d=1)}
    records[2].history[4], records[2].step = blind, 4
    (effect,) = rank_effects(measure_marginal_effects(records, ["d"], [UP]), "val/mIoU")
    assert effect.effect == 23.0


def test_importance_is_shown_from_20_trials_on_and_where_it_agrees() -> None:
    records = {
        n: record(n, 20.0 + 10 * (n % 2) + n % 4 // 2, D=4 + 4 * (n % 2), T=1 + n % 4 // 2)
        for n in range(20)
    }
    rows = measure_marginal_effects(records, ["T", "D"], [UP])
    effects = rank_effects(rows, "val/mIoU")
    agrees, differs = {"D": 0.7, "T": 0.2, "w": 0.1}, {"w": 0.97, "D": 0.02, "T": 0.01}
    assert not why_no_importance(agrees, effects, 20)
    few = why_no_importance(agrees, effects, 19)
    assert "19 completed trials say too little, 20 are needed" in few
    assert "it puts w before" in why_no_importance(differs, effects, 20)
    assert choose_importances(rows, {"val/mIoU": agrees}, 20) == {"val/mIoU": agrees}
    assert not choose_importances(rows, {"val/mIoU": differs}, 20)
