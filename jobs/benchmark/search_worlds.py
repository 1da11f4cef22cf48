"""Learning curves to search among: kept curves of trainings, and families given by a formula."""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...platform.search.study.pareto import hypervolume

EVALUATIONS = 8
"""Evaluations of a whole training."""
REFERENCE = (20.0, 0.25)
"""mIoU and mJ that bound the hypervolume."""
_CURVES = Path(__file__).resolve().parent / "curves"
_SAMPLES = 3000
_SECONDS = 30.0

Point = dict[str, Any]


class Truth(NamedTuple):
    """What a point is worth without noise, and costs.

    Attributes:
        miou: Mean over seeds of the last evaluation, in percent.
        energy: mJ an image.
        seconds: Device-seconds from one evaluation to the next.
        distance: From the best learning rate and mask weight, 0 at them.
    """

    miou: float
    energy: float
    seconds: float
    distance: float


@dataclass(frozen=True)
class World:
    """One search problem: a family of curves with the constants that a seed draws.

    Levels follow the kept trainings of `shapes_tiny`: D = 1 and D = 4 differ by 10 points of mIoU
    and by a third in energy, twice the timesteps cost twice the energy and time.

    Attributes:
        family: A key of `FAMILIES`.
        seed: Draws the optimum, the gains, and the noise of every training.
        learning_rate: Best learning rate.
        mask_weight: Best mask weight.
        gains: Factors on the gains of levels, of timesteps, and on the price of no normalization.
    """

    family: str
    seed: int
    learning_rate: float
    mask_weight: float
    gains: tuple[float, float, float]

    @classmethod
    def draw(cls, family: str, seed: int) -> "World":
        """Draw a world; the same for the same family and seed."""
        generator = np.random.default_rng([seed, sorted(FAMILIES).index(family)])
        rate = math.exp(generator.uniform(math.log(6e-4), math.log(2e-3)))
        weight = math.exp(generator.uniform(math.log(9.0), math.log(28.0)))
        gains = generator.uniform([0.7, 0.0, 0.5], [1.3, 1.5, 2.0])
        return cls(family, seed, rate, weight, (float(gains[0]), float(gains[1]), float(gains[2])))

    def truth(self, point: Point) -> Truth:
        """What a point is worth and costs."""
        steps, levels = point["model.neuron.timesteps"], point["model.neuron.levels"]
        none = point["model.neuron.normalization"] == "none"
        off_rate = math.log(point["optimizer.lr"] / self.learning_rate)
        off_weight = math.log(point["loss.mask_weight"] / self.mask_weight)
        distance = (off_rate / 0.8) ** 2 + (off_weight / 1.5) ** 2
        levels_gain, steps_gain, price = self.gains
        miou = 53.0 + levels_gain * 13.3 * (1 - 1 / levels) + steps_gain * math.log2(steps)
        miou -= 9.0 * distance + (price * (1 + math.log2(levels)) if none else 0.0)
        miou = max(2.0, miou)
        energy = 0.0236 * steps * (1 + 0.115 * (levels - 1)) * (1.1 if none else 1.0)
        if self.family == "correlated":
            energy *= math.exp(0.03 * (miou - 55.0))
        return Truth(miou, energy, _SECONDS * steps**0.9 * (1 + 0.03 * levels), distance)

    def curve(self, point: Point, number: int) -> list[tuple[float, float]]:
        """Measured mIoU and energy of each evaluation of a training.

        Args:
            point: Its point.
            number: Its number in the sweep: draws its noise.
        """
        truth = self.truth(point)
        generator = np.random.default_rng([self.seed, number, 7])
        shape, deviation = FAMILIES[self.family](truth, generator)
        offset = generator.normal(0.0, deviation)
        wobble = generator.normal(0.0, 0.35 * deviation + 0.2, EVALUATIONS)
        wobble[-1] = 0.0
        energies = truth.energy * np.exp(generator.normal(0.0, 0.01, EVALUATIONS))
        values = np.clip((truth.miou + offset) * shape + wobble, 0.0, 100.0)
        return list(zip(values.tolist(), energies.tolist(), strict=True))

    @functools.cached_property
    def best(self) -> tuple[float, float]:
        """Largest mIoU and largest hypervolume that any points reach, without noise."""
        points = [*corner_points(self), *_random_points(self.seed)]
        truths = [self.truth(point) for point in points]
        return max(item.miou for item in truths), measure_volume(truths)


def measure_volume(truths: list[Truth]) -> float:
    """Hypervolume of mIoU and energy."""
    vectors = [(-item.miou, item.energy) for item in truths]
    return hypervolume(vectors, (-REFERENCE[0], REFERENCE[1]))


def corner_points(world: World) -> list[Point]:
    """Every T, D and normalization at the best learning rate and mask weight."""
    return [
        {
            "model.neuron.timesteps": steps,
            "model.neuron.levels": levels,
            "model.neuron.normalization": normalization,
            "optimizer.lr": world.learning_rate,
            "loss.mask_weight": world.mask_weight,
        }
        for steps in (1, 2, 4)
        for levels in (1, 2, 4, 8)
        for normalization in ("levels", "none")
    ]


def _random_points(seed: int) -> list[Point]:
    generator = np.random.default_rng([seed, 11])
    return [
        {
            "model.neuron.timesteps": int(generator.choice([1, 2, 4])),
            "model.neuron.levels": int(generator.choice([1, 2, 4, 8])),
            "model.neuron.normalization": str(generator.choice(["levels", "none"])),
            "optimizer.lr": float(np.exp(generator.uniform(np.log(3e-4), np.log(4e-3)))),
            "loss.mask_weight": float(np.exp(generator.uniform(np.log(5.0), np.log(40.0)))),
        }
        for _ in range(_SAMPLES)
    ]


Shape = tuple[np.ndarray, float]
_SHARES = np.arange(1, EVALUATIONS + 1) / EVALUATIONS


def _saturate(speed: float) -> np.ndarray:
    """A curve that reaches 1 at its end, `speed` times faster than a straight line at first."""
    rise = 1 - np.exp(-speed * _SHARES)
    return rise / rise[-1]


def _crossing(truth: Truth, generator: np.random.Generator) -> Shape:
    """What ends well begins slowly: curves cross."""
    return _saturate(float(np.clip(9.0 - 0.12 * truth.miou, 1.0, 9.0))), 1.5


def _late(truth: Truth, generator: np.random.Generator) -> Shape:
    """A third of the trainings rise late, whatever they are worth."""
    early = _saturate(4.0)
    if generator.random() >= 1 / 3:
        return early, 1.5
    begin = generator.uniform(0.4, 0.7)
    rise = 1 / (1 + np.exp(-18.0 * (_SHARES - begin)))
    return 0.25 + 0.75 * rise / rise[-1], 1.5


def _noisy(truth: Truth, generator: np.random.Generator) -> Shape:
    """Trainings far from the best learning rate and weight spread more."""
    return _saturate(4.0), float(np.clip(1.0 + 3.0 * truth.distance, 1.0, 7.0))


def _correlated(truth: Truth, generator: np.random.Generator) -> Shape:
    """Well-behaved curves; the world's energy grows with its mIoU."""
    return _saturate(4.0), 1.5


def _kept(truth: Truth, generator: np.random.Generator) -> Shape:
    """The course of a kept training, drawn by chance, and the spread of its seeds."""
    shapes = kept_shapes()
    return shapes[int(generator.integers(len(shapes)))], kept_deviation()


FAMILIES: dict[str, Callable[[Truth, np.random.Generator], Shape]] = {
    "kept": _kept,
    "crossing": _crossing,
    "late": _late,
    "noisy": _noisy,
    "correlated": _correlated,
}
"""Family -> course of a training up to 1 and the standard deviation of its seeds."""


@functools.cache
def kept_shapes() -> list[np.ndarray]:
    """Validation mIoU of the kept trainings over the share of their steps, 1 at their end."""
    shapes = []
    for curve in _kept_curves():
        evaluations = curve["evaluations"]
        if len(evaluations) < 3:
            continue
        last = evaluations[-1]
        shares = [0.0, *(item["step"] / last["step"] for item in evaluations)]
        values = [0.0, *(item["val/mIoU"] / last["val/mIoU"] for item in evaluations)]
        shapes.append(np.interp(_SHARES, shares, values))
    return shapes


@functools.cache
def kept_deviation() -> float:
    """Standard deviation of the last mIoU between kept trainings that differ in the seed alone."""
    groups: dict[str, list[float]] = {}
    for curve in json.loads((_CURVES / "shapes_seeds.json").read_text()):
        value = curve["evaluations"][-1]["val/mIoU"]
        groups.setdefault(curve["params"]["model.neuron.levels"], []).append(value)
    return float(np.sqrt(np.mean([np.var(values, ddof=1) for values in groups.values()])))


def _kept_curves() -> list[dict[str, Any]]:
    return [
        curve for file in sorted(_CURVES.glob("*.json")) for curve in json.loads(file.read_text())
    ]
