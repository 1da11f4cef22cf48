"""Valid ranges of a neuron's constants, checked by functions and operators."""

import math
from collections.abc import Callable
from typing import Any

# Largest D: float32 holds every count up to it.
MOST_LEVELS = 1 << 24
# Least and largest divisor, threshold and slope: of a product of two, too, float32 holds the
# reciprocal in full precision.
LEAST, MOST = 1e-18, 1e18


def require(**values: Any) -> None:
    """Refuse a neuron's constants that are out of range.

    Args:
        values: By the names of `RULES`, all of them numbers or words.

    Raises:
        ValueError: With name, rule and value, at the first that breaks its rule. NaN breaks all.
    """
    for name, value in values.items():
        allowed, rule = RULES[name]
        if not allowed(value):
            raise ValueError(f"{name} must be {rule}, got {value!r}")


def _has_reciprocal(value: float) -> bool:
    return LEAST <= value <= MOST


def _allow_words(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in words, " or ".join(words)


# Name -> whether a value is allowed, and the rule in words.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "levels": (
        lambda value: 1 <= value <= MOST_LEVELS and value % 1 == 0,
        f"an integer from 1 to {MOST_LEVELS}",
    ),
    "divisor": (_has_reciprocal, f"from {LEAST:g} to {MOST:g}"),
    "threshold": (_has_reciprocal, f"from {LEAST:g} to {MOST:g}"),
    "alpha": (_has_reciprocal, f"from {LEAST:g} to {MOST:g}"),
    "decay": (lambda value: 0 <= value <= 1, "in [0, 1]"),
    "tau": (lambda value: 1 <= value < math.inf, "at least 1 and finite"),
    "eps": (lambda value: 0 <= value < math.inf, "at least 0 and finite"),
    "dynamics": _allow_words("stateless", "temporal"),
    "rounding": _allow_words("half_even", "half_up"),
    "window": _allow_words("closed", "open"),
}
