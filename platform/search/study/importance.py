"""Importance of a sweep's parameters for each objective, as Optuna estimates it."""

import warnings
from collections.abc import Sequence

import optuna

from ..sweep_file.schema import Objective


def measure_importances(
    study: optuna.Study, objectives: Sequence[Objective]
) -> dict[str, dict[str, float]]:
    """Estimate the importance of each parameter for each objective, over trials at full budget.

    Args:
        study: The sweep's study, with at least two such trials.
        objectives: Its objectives, in the study's order.

    Returns:
        Objective -> dotted key -> share of 1.

    Source: PED-ANOVA (Watanabe et al. 2023), as Optuna has it.
    """
    with warnings.catch_warnings():
        # That small is good where there is a target, which the sign below is for; and that few
        # results make all shares equal, which the table shows.
        warnings.simplefilter("ignore", UserWarning)
        return {
            objective.metric: optuna.importance.get_param_importances(
                study,
                target=lambda trial, axis=axis, sign=objective.sign: sign * trial.values[axis],
            )
            for axis, objective in enumerate(objectives)
        }
