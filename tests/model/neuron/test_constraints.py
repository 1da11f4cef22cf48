"""Constants and words that no neuron can have are refused, with name, rule and value."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from neuron_cases import DTYPES, Place, assert_same, currents, firing_rule

from spikeseg.model.neuron.batch_norm_lif import batch_norm_integer_lif
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF, integer_lif, integer_lif_with_state
from spikeseg.model.neuron.lif import LIF, lif
from spikeseg.model.neuron.reference import integer_backward, integer_forward

NAN, INF = float("nan"), float("inf")
POSITIVE = ("from 1e-18 to 1e+18", [0.0, -1.0, 1e-38, 1e-200, 1e19, NAN, INF])
# Name -> the rule in words, and what breaks it.
NUMBERS: dict[str, tuple[str, list[Any]]] = {
    "levels": ("an integer from 1 to 16777216", [0, -4, 2.5, (1 << 24) + 1, NAN, INF]),
    "divisor": POSITIVE,
    "threshold": POSITIVE,
    "alpha": POSITIVE,
    "decay": ("in [0, 1]", [-0.1, 1.5, NAN, INF]),
    "tau": ("at least 1 and finite", [0.0, 0.5, NAN, INF]),
    "eps": ("at least 0 and finite", [-1e-5, NAN, INF]),
}
WORDS = {
    "dynamics": ("stateless or temporal", ["Temporal", "", None]),
    "rounding": ("half_even or half_up", ["up", True]),
    "window": ("closed or open", ["opened", 1]),
}
X = torch.zeros(2, 3)
GOOD: dict[str, Any] = {"levels": 4, "divisor": 4.0, "decay": 0.5}
FORMS: dict[str, tuple[Callable[..., Any], str]] = {
    "integer_lif": (
        lambda **given: integer_lif(X, FiringRule(**GOOD | given)),
        "levels divisor threshold decay dynamics rounding window",
    ),
    "with_state": (
        lambda **given: integer_lif_with_state(
            X, None, FiringRule(**GOOD | {"dynamics": "temporal"} | given)
        ),
        "levels divisor threshold decay dynamics rounding window",
    ),
    "IntegerLIF": (
        lambda **given: IntegerLIF(FiringRule(**GOOD | given)),
        "levels divisor threshold decay dynamics rounding window",
    ),
    "batch_norm": (
        lambda eps=1e-5, **given: batch_norm_integer_lif(
            X, torch.ones(3), torch.zeros(3), FiringRule(**GOOD | given), eps=eps
        ),
        "levels divisor threshold eps rounding window",
    ),
    "lif": (lambda **given: lif(X, **given), "tau threshold alpha"),
    "LIF": (lambda **given: LIF(**given), "tau threshold alpha"),
}


@pytest.mark.parametrize("form", [*FORMS])
def test_what_no_neuron_can_have_is_refused(form: str) -> None:
    make, names = FORMS[form]
    make()
    for name in names.split():
        rule, values = (NUMBERS | WORDS)[name]
        for value in values:
            said = re.escape(f"{name} must be {rule}, got {value!r}")
            with pytest.raises(ValueError, match=f"^{said}$"):
                make(**{name: value})


NUMBERS_OF_OPERATORS: dict[str, Any] = {"levels": 4, "divisor": 4.0, "threshold": 1.0}
NUMBERS_OF_OPERATORS |= {"decay": 0.5, "tau": 2.0, "alpha": 4.0}
WORDS_OF_OPERATORS = {"dynamics": "stateless", "rounding": "half_even", "window": "closed"}
USUAL = NUMBERS_OF_OPERATORS | WORDS_OF_OPERATORS
OPERATORS = [
    "integer_stateless",
    "integer_stateless_backward",
    "integer_temporal",
    "integer_temporal_backward",
    "binary_lif",
    "binary_lif_backward",
    "norm_integer",
    "norm_integer_sums",
    "norm_integer_backward",
]


@pytest.mark.parametrize("name", OPERATORS)
def test_the_operators_refuse_it_too(name: str) -> None:
    operator = getattr(torch.ops.spikeseg, name).default
    given: dict[str, Any] = {}
    for argument in operator._schema.arguments:
        kinds = {"Tensor": X, "bool": False, "str": "torch", "List[int]": [3, 1]}
        kinds["List[Tensor]"] = [torch.zeros(3)] * 4
        given[argument.name] = USUAL.get(argument.name, kinds.get(str(argument.type)))
    given |= {n: torch.zeros(3) for n in ("mean", "gain", "bias") if n in given}
    if "mask" in given:
        given["mask"] = torch.zeros(2, 3, dtype=torch.int8)
    operator(**given)
    for word in WORDS_OF_OPERATORS.keys() & given.keys():
        with pytest.raises(ValueError, match=f"^{word} must be {WORDS[word][0]}, got 'other'$"):
            operator(**given | {word: "other"})
    for constant in NUMBERS_OF_OPERATORS.keys() & given.keys():
        rule, values = NUMBERS[constant]
        # Of `levels` the operator's schema takes whole numbers alone.
        for value in values if constant != "levels" else [0, -4, (1 << 24) + 1]:
            said = re.escape(f"{constant} must be {rule}, got {value!r}")
            with pytest.raises(ValueError, match=f"^{said}$"):
                operator(**given | {constant: value if constant == "levels" else float(value)})


@pytest.mark.parametrize("value", [1e-18, 1e18])
@pytest.mark.parametrize("rounding", ["half_even", "half_up"])
def test_the_ends_of_the_ranges_follow_the_law(place: Place, value: float, rounding: str) -> None:
    for dtype in DTYPES:
        rule = firing_rule("large", divisor=value, threshold=value, rounding=rounding)
        # In units of the threshold; float16 holds its zeros and infinities.
        x = (currents((2, 90), torch.float64) * value).to(dtype)
        g = torch.linspace(-2, 2, 180).view(2, 90).to(dtype)
        on = x.to(place.device).requires_grad_()
        spikes = integer_lif(on, rule, backend=place.backend)
        spikes.backward(g.to(place.device))
        expected, inside, _ = integer_forward(x, rule)
        wanted, _ = integer_backward(g, inside, rule)
        assert_same(spikes, expected)
        assert on.grad is not None
        assert_same(on.grad, wanted)
