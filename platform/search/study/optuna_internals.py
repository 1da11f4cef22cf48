"""The only file that uses what Optuna has no public call for; tests of the study pin it."""

from collections.abc import Mapping
from typing import Any

import optuna
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
