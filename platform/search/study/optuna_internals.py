"""The only file that uses what Optuna has no public call for; tests of the study pin it."""

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, Trial

FIXED_PARAMS = "fixed_params"
"""System attribute that holds the parameters of a queued trial."""
RELATIVE_PARAMS = ":relative_params"
"""Part of the names of system attributes in which samplers keep the values that they proposed."""


def live_trial(study: optuna.Study, frozen: FrozenTrial) -> Trial:
    """A handle to a running trial, also to one that an earlier process began."""
    return Trial(study, frozen._trial_id)


def set_system_attributes(
    study: optuna.Study, frozen: FrozenTrial, attributes: Mapping[str, Any]
) -> None:
    """Add system attributes to a trial that is queued already."""
    for name, value in attributes.items():
        study._storage.set_trial_system_attr(frozen._trial_id, name, value)


def study_of(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler
) -> optuna.Study:
    """A study in memory that holds these trials, to ask a sampler without asking the real one.

    `Study.add_trial` checks and copies each trial deeply, which at thousands of trials costs
    seconds; here those that have ended, which nobody changes any more, are shared.

    Args:
        trials: All trials of another study in their order, or only some that have not ended.
        directions: Its directions.
        sampler: What proposes for its next trial.
    """
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, directions=directions, sampler=sampler)
    held = storage._studies[study._study_id].trials
    for number, trial in enumerate(trials):
        if not trial.state.is_finished():
            # The one that is asked for is changed in place, and it may be queued.
            trial = copy.deepcopy(trial)
            trial.number = number
            storage._trial_id_to_study_id_and_number[trial._trial_id] = study._study_id, number
        assert trial.number == number
        held.append(trial)
    # Samplers know trials by their ids: a new one must have none that is taken.
    storage._max_trial_id = max((trial._trial_id for trial in trials), default=-1)
    return study


def non_domination_rank(values: np.ndarray, *, front_only: bool = False) -> np.ndarray:
    """Index of each row's non-dominated layer; 0 is the front.

    Args:
        values: Objective vectors, (N, objectives), smaller is better, without NaN.
        front_only: Count all layers behind the front as one.
    """
    return _fast_non_domination_rank(values, n_below=1 if front_only else None)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's warnings: of values written twice after a crash, of new features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
