"""Fronts of two or more objectives: layers, crowding, hypervolume. Smaller is better throughout."""

import bisect
import math
from collections.abc import Sequence

import numpy as np

from .optuna_internals import non_domination_rank

Vector = Sequence[float]


def dominates(one: Vector, other: Vector) -> bool:
    """Whether `one` is nowhere worse than `other` and better somewhere."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def layers(vectors: Sequence[Vector]) -> list[int]:
    """Index of the non-dominated layer of each vector; 0 is the front.

    Args:
        vectors: Objective vectors, smaller is better; one with a NaN dominates nothing and is
            dominated by nothing.
    """
    return _depths(vectors, front_only=False)


def front(vectors: Sequence[Vector]) -> list[int]:
    """Indices of the non-dominated vectors, sorted by their first objective."""
    depths = _depths(vectors, front_only=True)
    best = (index for index, depth in enumerate(depths) if depth == 0)
    return sorted(best, key=lambda index: tuple(vectors[index]))


def _depths(vectors: Sequence[Vector], *, front_only: bool) -> list[int]:
    if not vectors:
        return []
    values = np.array(vectors, dtype=float)
    comparable = ~np.isnan(values).any(axis=1)
    depth = np.zeros(len(values), dtype=int)
    depth[comparable] = non_domination_rank(values[comparable], front_only=front_only)
    return depth.tolist()


class Front:
    """The front of a set of vectors that grows, sorted by their first objective.

    Adding a vector costs one comparison with each member, however many were added before.
    """

    def __init__(self) -> None:
        self._members: list[tuple[tuple[float, ...], int]] = []

    @property
    def keys(self) -> list[int]:
        """Keys of the members: the order of `front`, among equal vectors by key."""
        return [key for _, key in self._members]

    @property
    def vectors(self) -> list[tuple[float, ...]]:
        """The members' vectors in the same order."""
        return [vector for vector, _ in self._members]

    def add(self, vector: Vector, key: int) -> bool:
        """Take a vector in; those that it dominates leave.

        Args:
            vector: Finite numbers, smaller is better.
            key: What `keys` calls it.

        Returns:
            Whether it is on the front; equal vectors are all on it.
        """
        added = tuple(vector)
        if any(dominates(member, added) for member, _ in self._members):
            return False
        self._members = [item for item in self._members if not dominates(added, item[0])]
        bisect.insort(self._members, (added, key))
        return True


def crowding(vectors: Sequence[Vector]) -> list[float]:
    """Crowding distance of each vector among all; infinite at the ends of an objective.

    Source: NSGA-II (Deb et al. 2002), section III-B.
    """
    distance = [0.0] * len(vectors)
    if not vectors:
        return distance
    for axis in range(len(vectors[0])):
        order = sorted(range(len(vectors)), key=lambda i: vectors[i][axis])
        low, high = vectors[order[0]][axis], vectors[order[-1]][axis]
        distance[order[0]] = distance[order[-1]] = math.inf
        if high > low:
            for before, here, after in zip(order, order[1:], order[2:], strict=False):
                gap = vectors[after][axis] - vectors[before][axis]
                distance[here] += gap / (high - low)
    return distance


def hypervolume(vectors: Sequence[Vector], reference: Vector) -> float:
    """Area between the front of two-objective vectors and a reference point that is worse.

    Args:
        vectors: Pairs, smaller is better; those not better than the reference count nothing.
        reference: The pair that bounds the area.

    Raises:
        ValueError: Where vectors do not have two objectives.
    """
    if len(reference) != 2:
        raise ValueError(f"hypervolume needs two objectives, got {len(reference)}")
    inside = [v for v in vectors if v[0] < reference[0] and v[1] < reference[1]]
    area, ceiling = 0.0, reference[1]
    for index in front(inside):
        x, y = inside[index]
        if y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return area
