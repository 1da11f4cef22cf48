"""What a point of a sweep is called by people: `T2 D4 levels` where the sweep varies the neuron."""

from typing import Any

from ...tracking.pages.run_page import name_neuron
from .plan import SweepPlan

_NEURON = "model.neuron."


def name_point(plan: SweepPlan, point: dict[str, Any]) -> str:
    """`T2 D4 levels` where the sweep varies the neuron, else an empty text.

    Args:
        plan: The sweep.
        point: Dotted key -> value.
    """
    if any(key.startswith(_NEURON) for key in plan.recipe.space.dimensions):
        return name_neuron(plan.experiment(point).config)
    return ""
