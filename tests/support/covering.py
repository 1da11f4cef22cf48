"""Few combinations that hold every pair of values of every two factors."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

Case = dict[str, Any]
_Pair = tuple[str, int, str, int]


def pairs_of(case: Case, factors: Mapping[str, Sequence[Any]]) -> set[_Pair]:
    """Pairs of (factor, index of its value) that a case holds."""
    chosen = {name: values.index(case[name]) for name, values in factors.items()}
    return {(a, chosen[a], b, chosen[b]) for a, b in combinations(factors, 2)}


def all_pairs(factors: Mapping[str, Sequence[Any]]) -> set[_Pair]:
    """Every pair there is."""
    return {
        (a, i, b, j)
        for a, b in combinations(factors, 2)
        for i in range(len(factors[a]))
        for j in range(len(factors[b]))
    }


def covering_cases(factors: Mapping[str, Sequence[Any]]) -> list[Case]:
    """Cases that cover all pairs, each new one built greedily around a pair still missing."""
    missing = all_pairs(factors)
    cases = []
    while missing:
        a, i, b, j = min(missing)
        case = {a: factors[a][i], b: factors[b][j]}
        for name, values in factors.items():
            if name in case:
                continue
            known = {key: factors[key].index(value) for key, value in case.items()}

            gains = []
            for index in range(len(values)):
                found = {(name, index, k, v) for k, v in known.items()}
                found |= {(k, v, name, index) for k, v in known.items()}
                gains.append(len(found & missing))
            case[name] = values[gains.index(max(gains))]
        missing -= pairs_of(case, factors)
        cases.append(case)
    return cases
