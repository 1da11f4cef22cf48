"""What a point of a sweep is called by people: `T2 D4 levels` where the sweep varies the neuron."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ...config.errors import ConfigError
from ...tracking.pages.run_page import name_neuron
from .plan import SweepPlan

_NEURON = "model.neuron."
_NAMED = tuple(_NEURON + field for field in ("timesteps", "levels", "normalization"))


def name_point(plan: SweepPlan, point: dict[str, Any]) -> str:
    """`T2 D4 levels` where the sweep varies the neuron, else an empty text.

    Args:
        plan: The sweep.
        point: Dotted key -> value.
    """
    if any(key.startswith(_NEURON) for key in plan.recipe.space.dimensions):
        return name_neuron(plan.experiment(point).config)
    return ""


def call_configuration(plan: SweepPlan, number: int, point: dict[str, Any]) -> str:
    """Number and name of a configuration, as `21 (T4 D4 none)`; the number alone without a name.

    Args:
        plan: The sweep.
        number: Number of its first trial.
        point: Dotted key -> value.
    """
    called = name_point(plan, point)
    return f"{number} ({called})" if called else str(number)


def list_unnamed(plan: SweepPlan) -> list[str]:
    """Dimensions of a sweep that a point's name says nothing of."""
    dimensions = list(plan.recipe.space.dimensions)
    named = any(key.startswith(_NEURON) for key in dimensions)
    return [key for key in dimensions if not (named and key in _NAMED)]


def describe_point(plan: SweepPlan, point: dict[str, Any]) -> str:
    """A point whole: its name, then what the name does not say, as `T2 D4 levels, lr=0.01`.

    Args:
        plan: The sweep.
        point: Dotted key -> value.
    """
    try:
        name = name_point(plan, point)
    except ConfigError:  # a point that no training accepts
        name = ""
    others = {key: value for key, value in point.items() if not (name and key in _NAMED)}
    return ", ".join(filter(None, [name, format_point(others)]))


def format_point(point: Mapping[str, object]) -> str:
    """A point by the last parts of its fields' names, whole where two end alike."""
    ends = Counter(key.rpartition(".")[2] for key in point)
    values = (
        (
            end if ends[end := key.rpartition(".")[2]] == 1 else key,
            f"{value:.3g}" if isinstance(value, float) else value,
        )
        for key, value in point.items()
    )
    return ", ".join(f"{name}={value}" for name, value in values)
