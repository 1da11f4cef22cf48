"""Fronts of two or more objectives: layers, crowding, hypervolume. Smaller is better throughout."""

import math
from collections.abc import Sequence

Vector = Sequence[float]


def dominates(one: Vector, other: Vector) -> bool:
    """Whether `one` is nowhere worse than `other` and better somewhere."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def layers(vectors: Sequence[Vector]) -> list[int]:
    """Index of the non-dominated layer of each vector; 0 is the front.

    Args:
        vectors: Objective vectors, smaller is better.
    """
    result = [-1] * len(vectors)
    left = set(range(len(vectors)))
    depth = 0
    while left:
        front = {
            i for i in left if not any(dominates(vectors[j], vectors[i]) for j in left if j != i)
        }
        for index in front:
            result[index] = depth
        left -= front
        depth += 1
    return result


def front(vectors: Sequence[Vector]) -> list[int]:
    """Indices of the non-dominated vectors, sorted by their first objective."""
    chosen: list[int] = []
    # In this order nothing that comes later dominates what came before.
    for index in sorted(range(len(vectors)), key=lambda i: tuple(vectors[i])):
        if not any(dominates(vectors[other], vectors[index]) for other in chosen):
            chosen.append(index)
    return chosen


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
