"""Importances with intervals, and means at each value of a parameter."""

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from spikeseg.platform.search.study.marginal_effects import (
    measure_importance_intervals,
    measure_marginal_effects,
)
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_file.schema import Objective

UP = Objective(metric="val/mIoU", direction="maximize")


def study_of_line(count: int) -> optuna.Study:
    """A study in which `a` decides and `b` does nothing."""
    study = optuna.create_study(directions=["maximize"])
    sides: dict[str, BaseDistribution] = {
        "a": FloatDistribution(0.0, 1.0),
        "b": FloatDistribution(0.0, 1.0),
    }
    for number in range(count):
        a, b = (number * 0.618) % 1.0, (number * 0.414) % 1.0
        study.add_trial(create_trial(params={"a": a, "b": b}, distributions=sides, value=a))
    return study


def test_many_results_tell_which_parameter_matters_and_few_do_not() -> None:
    many = measure_importance_intervals(study_of_line(40), [UP])["val/mIoU"]
    few = measure_importance_intervals(study_of_line(6), [UP])["val/mIoU"]
    assert many["a"][0] > many["b"][1], "the intervals do not meet"
    assert few["a"][0] < few["b"][1], "of six results they do"


def test_the_intervals_are_the_same_each_time() -> None:
    study = study_of_line(10)
    assert measure_importance_intervals(study, [UP]) == measure_importance_intervals(study, [UP])


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
