"""Schedulers of other packages, taken from the packages themselves where they are installed."""

import importlib
import importlib.util
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .search_worlds import EVALUATIONS

_TIME = "evaluation"


class SyneTuneHalving:
    """Syne Tune's own `MOASHA` with its defaults; needs the package `syne-tune`."""

    def __init__(self) -> None:
        self._scheduler: Any = None
        self._trials: dict[int, Any] = {}

    def go_on(self, number: int, evaluation: int, vector: Sequence[float]) -> bool:
        """Whether a training goes on after an evaluation, which counts from 1.

        Args:
            number: The training's number.
            evaluation: Which of its evaluations.
            vector: Its objectives, smaller is better.
        """
        make_trial = importlib.import_module("syne_tune.backend.trial_status").Trial
        names = [f"objective {axis}" for axis in range(len(vector))]
        if self._scheduler is None:
            self._scheduler = _make_scheduler(names)
        if number not in self._trials:
            self._trials[number] = make_trial(number, {}, datetime.now())
            self._scheduler.on_trial_add(self._trials[number])
        result = {**dict(zip(names, map(float, vector), strict=True)), _TIME: evaluation}
        decided = self._scheduler.on_trial_result(self._trials[number], result)
        return str(decided) == "CONTINUE"


def _make_scheduler(names: Sequence[str]) -> Any:
    module = importlib.import_module("syne_tune.optimizer.schedulers.multiobjective.moasha")
    # A training's end is the replay's to say.
    whole = EVALUATIONS + 1
    return module.MOASHA({}, list(names), time_attr=_TIME, max_t=whole, random_seed=0)


def has_syne_tune() -> bool:
    """Whether Syne Tune is installed."""
    return importlib.util.find_spec("syne_tune") is not None
