"""Seconds of a whole trial, modelled from the trials so far: by T, D, sizes and all else."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .trial_records import TrialRecord

LEAST_TRIALS = 3
"""Trials with an evaluation that a model needs."""
# Of features scaled to a deviation of 1: what one trial says about them is worth so much.
_RIDGE = 0.3


class SecondsModel:
    """Log-linear in the logarithm of numbers (T, D, widths), with an offset a word; ridge.

    A trial counts by the seconds of its steps so far, scaled to a whole training: those that were
    stopped count like those that finished.

    Args:
        records: Trials; those without an evaluation or without seconds are passed over.
        steps: Training steps of a whole training.
    """

    def __init__(self, records: Iterable[TrialRecord], *, steps: int) -> None:
        known = [
            (item.point, item.seconds * steps / max(item.history))
            for item in records
            if item.history and item.seconds > 0 and max(item.history) > 0
        ]
        self.trials = len(known)
        self._mean = 0.0
        self._names: list[str] = []
        if not known:
            return
        points, seconds = zip(*known, strict=True)
        rows = [_features(point) for point in points]
        self._names = sorted({name for row in rows for name in row})
        data, logs = self._matrix(rows), np.log(seconds)
        self._middle, self._scale = data.mean(axis=0), data.std(axis=0)
        self._scale[self._scale == 0] = 1.0
        self._mean = float(logs.mean())
        scaled = (data - self._middle) / self._scale
        gram = scaled.T @ scaled + _RIDGE * np.eye(len(self._names))
        self._weights = np.linalg.solve(gram, scaled.T @ (logs - self._mean))

    @property
    def is_ready(self) -> bool:
        """Whether enough trials are known."""
        return self.trials >= LEAST_TRIALS

    def predict(self, point: Mapping[str, Any]) -> float:
        """Predict the seconds of a whole training.

        Args:
            point: Dotted key -> value; a value that no trial had counts like the mean.

        Raises:
            ValueError: Where no trial is known.
        """
        if not self.trials:
            raise ValueError("seconds cannot be predicted before a trial was evaluated")
        if not self._names:
            return math.exp(self._mean)
        row = self._matrix([_features(point)])[0]
        known = np.isin(self._names, list(_features(point)))
        scaled = np.where(known | self._is_word, (row - self._middle) / self._scale, 0.0)
        # Beyond what was seen, no further than a factor that a whole deviation makes.
        return math.exp(self._mean + float(np.clip(scaled, -3.0, 3.0) @ self._weights))

    @property
    def _is_word(self) -> np.ndarray:
        return np.array(["=" in name for name in self._names], dtype=bool)

    def _matrix(self, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
        return np.array([[row.get(name, 0.0) for name in self._names] for row in rows], dtype=float)


def _features(point: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by their logarithm, lists of numbers by that of their sum, the rest as words."""
    features = {}
    for key, value in point.items():
        if key == "seed":
            continue
        numbers = value if isinstance(value, list) else [value]
        if all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in numbers):
            features[key] = math.log(sum(numbers))
        else:
            features[f"{key}={json.dumps(value)}"] = 1.0
    return features
