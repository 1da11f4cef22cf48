"""Few combinations that hold every pair of values of every two factors that have an effect."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

Case = dict[str, Any]
Factors = Mapping[str, Sequence[Any]]
# Factor -> what other factors must be for it to have an effect; conditions of these included.
Conditions = Mapping[str, Mapping[str, Sequence[Any]]]
_Pair = tuple[str, int, str, int]


def has_effect(factor: str, case: Case, conditions: Conditions) -> bool:
    """Whether a factor's value matters in a case; factors that it lacks are no obstacle."""
    return all(
        case[name] in allowed
        for name, allowed in conditions.get(factor, {}).items()
        if name in case
    )


def pairs_of(case: Case, factors: Factors, conditions: Conditions) -> set[_Pair]:
    """Pairs of (factor, index of its value) that a case holds and that have an effect in it."""
    chosen = {
        name: values.index(case[name])
        for name, values in factors.items()
        if name in case and has_effect(name, case, conditions)
    }
    return {(a, chosen[a], b, chosen[b]) for a, b in combinations(chosen, 2)}


def all_pairs(factors: Factors, conditions: Conditions) -> set[_Pair]:
    """Every pair that has an effect in some case."""
    return {
        (a, i, b, j)
        for a, b in combinations(factors, 2)
        for i, first in enumerate(factors[a])
        for j, second in enumerate(factors[b])
        if all(_choices({a: first, b: second}, factors, conditions).values())
    }


def covering_cases(factors: Factors, conditions: Conditions) -> list[Case]:
    """Cases that cover all pairs, each new one built greedily around a pair still missing.

    A factor without effect has its first value.
    """
    missing = all_pairs(factors, conditions)
    cases = []
    while missing:
        a, i, b, j = min(missing)
        case = {a: factors[a][i], b: factors[b][j]}
        choices = _choices(case, factors, conditions)
        # What decides whether others have an effect comes first.
        for name in sorted(factors, key=lambda name: name in conditions):
            if name not in case:
                gains = [
                    len(pairs_of({**case, name: value}, factors, conditions) & missing)
                    for value in choices[name]
                ]
                case[name] = choices[name][gains.index(max(gains))]
        missing -= pairs_of(case, factors, conditions)
        cases.append(
            {
                name: case[name] if has_effect(name, case, conditions) else values[0]
                for name, values in factors.items()
            }
        )
    return cases


def _choices(pair: Case, factors: Factors, conditions: Conditions) -> dict[str, list[Any]]:
    """Values that every factor may have for both of a pair to have an effect."""
    choices = {name: [pair[name]] if name in pair else list(v) for name, v in factors.items()}
    for factor in pair:
        for name, allowed in conditions.get(factor, {}).items():
            choices[name] = [value for value in choices[name] if value in allowed]
    return choices
