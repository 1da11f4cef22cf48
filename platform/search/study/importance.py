"""Importance of a sweep's parameters for each objective, as Optuna estimates it; intervals."""

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..sweep_file.schema import Objective
from .samplers import merge_replicates

_RESAMPLES = 60
_SEED = 28


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


def measure_importance_intervals(
    study: optuna.Study, objectives: Sequence[Objective]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Estimate 95 % intervals of importances: results are drawn anew with replacement.

    Args:
        study: The sweep's study, with at least two results; a configuration with several seeds
            counts once, with its mean.
        objectives: Its objectives, in the study's order.

    Returns:
        Objective -> dotted key -> low and high share of 1. An interval that holds most of [0, 1]
        says that the results do not tell.
    """
    done = [
        trial
        for trial in merge_replicates(study.get_trials(deepcopy=False))
        if trial.state == TrialState.COMPLETE
    ]
    generator = np.random.default_rng(_SEED)
    drawn: dict[str, dict[str, list[float]]] = {item.metric: {} for item in objectives}
    for _ in range(_RESAMPLES):
        chosen = [done[index] for index in generator.integers(len(done), size=len(done))]
        for name, shares in measure_importances(_copy_study(study, chosen), objectives).items():
            for key, share in shares.items():
                drawn[name].setdefault(key, []).append(share)
    return {
        name: {
            key: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
            for key, values in shares.items()
        }
        for name, shares in drawn.items()
    }


def _copy_study(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study in memory of these trials, of which some may come twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copied = optuna.create_study(directions=study.directions)
        copied.add_trials(
            [
                create_trial(params=t.params, distributions=t.distributions, values=t.values)
                for t in trials
            ]
        )
    return copied
