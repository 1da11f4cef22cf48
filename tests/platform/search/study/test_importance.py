"""Importances with intervals."""

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from spikeseg.platform.search.study.importance import measure_importance_intervals
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
