"""Score against energy: one trained network at other T and D than it was trained with."""

from collections.abc import Callable, Sequence
from typing import Any

from ...model.neuron.kinds import find_neurons
from ..config.errors import ConfigError
from ..evaluation.scores import EvaluatedModel, measure_energy
from .evaluate_run import evaluate_run
from .image_worker import EvaluateRequest, ImageWorker


def evaluate_levels(
    request: EvaluateRequest,
    *,
    timesteps: Sequence[int],
    levels: Sequence[int],
    tell: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Score a network at every pair of T and D.

    D is the largest count of a step; what one spike stands for, the divisor, stays as trained, so
    that fewer levels cut counts off and more of them cut off less. T repeats the image.

    Args:
        request: What to score; other forms are left out.
        timesteps: T; empty for the trained one.
        levels: D; empty for the trained one.
        tell: Takes a line for a person after every pair.

    Returns:
        `timesteps`, `levels`, the split's mIoU, mAcc and aAcc in percent, `energy_mJ` and
        `firing_rate` on validation images, and whether the pair is as trained.

    Raises:
        ConfigError: Where a number is below 1, or neurons have no levels.
    """
    if min([1, *timesteps, *levels]) < 1:
        raise ConfigError("--timesteps and --levels must be numbers of at least 1")
    trained = ImageWorker(request._replace(others=(), submission=None, energy=False))
    found = {neuron.levels for _, neuron in find_neurons(trained.loaded.model)}
    if levels and not all(hasattr(n, "rule") for _, n in find_neurons(trained.loaded.model)):
        raise ConfigError("--levels: the run's neurons are binary and have no levels")
    own_steps = trained.config.model.neuron.timesteps
    points = []
    for steps in timesteps or (own_steps,):
        for level in levels or (None,):
            points.append(_score_point(request, steps, level))
            point = points[-1]
            point["levels"] = max(found) if level is None else level
            point["trained"] = steps == own_steps and {point["levels"]} == found
            tell(
                f"T {steps}, D {point['levels']}: mIoU {point['mIoU']:.2f} %, "
                f"{point['energy_mJ']:.4g} mJ"
            )
    return points


def _score_point(request: EvaluateRequest, steps: int, level: int | None) -> dict[str, Any]:
    overrides = (*request.overrides, f"model.neuron.timesteps={steps}")
    asked = request._replace(
        overrides=overrides, levels=level, others=(), submission=None, energy=False
    )
    report, worker = evaluate_run(asked)
    loaded = worker.loaded
    energy = measure_energy(
        EvaluatedModel(loaded.model, worker.dataset, worker.config, loaded.device)
    )
    rates = [row.rate for row in energy.rows if row.spiking_input]
    split = request.split
    return {
        "timesteps": steps,
        "levels": level,
        **{name: report["metrics"][f"{split}/{name}"] for name in ("mIoU", "mAcc", "aAcc")},
        "energy_mJ": energy.total_mj,
        "firing_rate": sum(rates) / max(1, len(rates)),
    }
