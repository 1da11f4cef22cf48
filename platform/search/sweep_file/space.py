"""The points a sweep may try: typed dimensions, conditions between them, and grids over them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...config.recipes import takes_fractions
from .dimensions import Choices, Floats, Integers, Scalar, Suggester, encode

Point = dict[str, Any]
# Numbers of so few values are checked one by one before a sweep starts.
_ALL_VALUES = 64
_LARGEST_GRID = 100_000
_FEW_POINTS = 10_000


def _add_kind(path: str, entry: Any) -> Any:
    """Add a dimension's kind; whole numbers are `int` unless the field takes fractions."""
    if not isinstance(entry, dict) or "kind" in entry:
        return entry
    if "choices" in entry:
        return {**entry, "kind": "choices"}
    numbers = [entry.get(name) for name in ("low", "high", "step") if entry.get(name) is not None]
    whole = bool(numbers) and all(type(number) is int for number in numbers)
    return {**entry, "kind": "int" if whole and not takes_fractions(path) else "float"}


class Space(BaseModel):
    """Dotted configuration key -> dimension, with conditions that refer to earlier or later ones.

    Attributes:
        dimensions: In the order in which they are drawn (a condition's dimension comes first).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dimensions: dict[str, Annotated[Choices | Integers | Floats, Field(discriminator="kind")]]

    @model_validator(mode="before")
    @classmethod
    def _add_kinds(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("dimensions"), dict):
            entries = content["dimensions"].items()
            return {
                "dimensions": _sort_parents_first({k: _add_kind(str(k), v) for k, v in entries})
            }
        return content

    @model_validator(mode="after")
    def _conditions_can_hold(self) -> "Space":
        for path, dimension in self.dimensions.items():
            for parent, values in dimension.when.items():
                if not values:
                    raise ValueError(f"{path}: when: {parent}: needs at least one value")
                for value in values:
                    rule = self.dimensions[parent].broken_rule(value)
                    if rule is None and self.dimensions[parent].count() is None:
                        rule = f"{parent} needs choices or a step, to be drawn twice"
                    if rule is not None:
                        raise ValueError(f"{path}: when: {parent}: got {value!r}: {rule}")
                dimension.when[parent] = [self.exact(parent, value) for value in values]
            if next(self._required(path), None) is None:
                raise ValueError(
                    f"{path}: when: its conditions exclude each other, it would never be drawn"
                )
        return self

    def draw(self, trial: Suggester) -> Point:
        """Draw one point, dimension by dimension; those whose condition fails are left out.

        Args:
            trial: An Optuna trial; drawing twice from the same trial gives the same point.
        """
        point: Point = {}
        for path, dimension in self.dimensions.items():
            if active(dimension.when, point):
                point[path] = dimension.draw(path, trial)
        return point

    def grid(self) -> Iterator[Point]:
        """Every combination of choices and stepped numbers, conditions respected.

        Raises:
            ValueError: Names a dimension without a finite list of values, or the number of points
                where they are too many to be listed.
        """
        for path, entry in self.dimensions.items():
            if entry.count() is None or (isinstance(entry, Integers) and entry.log):
                raise ValueError(f"{path}: a grid needs choices or a step")
        points = self.branches(_LARGEST_GRID)
        if points is None:
            raise ValueError(f"a grid has at most {_LARGEST_GRID} points, this one has more")
        yield from points

    def few_points(self) -> list[Point] | None:
        """List all points; None where a sweep cannot try them all, or a range is continuous."""
        points = self.branches()
        return points if points is not None and all(map(self.is_whole, points)) else None

    def branches(self, limit: int = _FEW_POINTS) -> list[Point] | None:
        """List all points, without the values of continuous ranges; None where they are more."""
        counts = {path: entry.count() for path, entry in self.dimensions.items()}
        if any(count is not None and count > limit for count in counts.values()):
            return None
        listed = {
            path: entry.listed() or []
            for path, entry in self.dimensions.items()
            if counts[path] is not None
        }
        points = list(itertools.islice(self._combined(listed), limit + 1))
        return points if len(points) <= limit else None

    def _combined(self, listed: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
        """Every combination, in order; a dimension whose condition fails is passed over."""
        paths = list(listed)

        def extended(point: Point, index: int) -> Iterator[Point]:
            if index == len(paths):
                yield point
                return
            path = paths[index]
            if not active(self.dimensions[path].when, point):
                yield from extended(point, index + 1)
                return
            for value in listed[path]:
                yield from extended({**point, path: value}, index + 1)

        return extended({}, 0)

    def corner_points(self) -> Iterator[tuple[str, Any, Point]]:
        """For each dimension and each of its values that matter, a whole point that has it.

        Of a number with many values, or without a step, both ends matter, of any other all values.

        Yields:
            Dotted key, value, and a point in which the key has this value.
        """
        for path, dimension in self.dimensions.items():
            count = dimension.count()
            few = count is not None and count <= _ALL_VALUES
            required = next(self._required(path))
            for value in (dimension.listed() if few else None) or dimension.corners():
                yield path, value, self._complete(required | {path: value})

    def corner_combinations(self) -> Iterator[Point]:
        """Every combination of corners, conditions respected, in order; there may be many."""
        corners = {path: entry.corners() for path, entry in self.dimensions.items()}
        yield from self._combined(corners)

    def is_whole(self, point: Mapping[str, Any]) -> bool:
        """Whether a point leaves nothing to be drawn."""
        return all(
            path in point for path, entry in self.dimensions.items() if active(entry.when, point)
        )

    def encode(self, point: Mapping[str, Any]) -> dict[str, Scalar]:
        """A point as Optuna stores it."""
        return {
            path: encode(value) if isinstance(self.dimensions.get(path), Choices) else value
            for path, value in point.items()
        }

    def decode(self, stored: Mapping[str, Any]) -> Point:
        """A point from what Optuna stored."""
        point: Point = {}
        for path, dimension in self.dimensions.items():
            if path not in stored:
                continue
            if isinstance(dimension, Choices):
                point[path] = next(v for v in dimension.choices if encode(v) == stored[path])
            else:
                point[path] = self.exact(path, stored[path])
        return point

    def exact(self, path: str, value: Any) -> Any:
        """Round a value to the nearest one of its dimension."""
        dimension = self.dimensions[path]
        return dimension.exact(value) if isinstance(dimension, Floats) else value

    def _required(self, path: str) -> Iterator[Point]:
        """Values of other dimensions that meet a dimension's conditions, every combination."""
        when = self.dimensions[path].when
        for values in itertools.product(*when.values()):
            conditions = dict(zip(when, values, strict=True))
            for above in itertools.product(*(self._required(parent) for parent in when)):
                needed = dict(conditions)
                parts = [item for part in above for item in part.items()]
                if all(needed.setdefault(key, value) == value for key, value in parts):
                    yield needed

    def _complete(self, fixed: Point) -> Point:
        point: Point = {}
        for path, dimension in self.dimensions.items():
            if path in fixed:
                point[path] = fixed[path]
            elif active(dimension.when, point):
                point[path] = dimension.corners()[0]
        return point


def active(when: Mapping[str, Sequence[Any]], point: Mapping[str, Any]) -> bool:
    """Whether a dimension with these conditions is part of a point."""
    return all(key in point and point[key] in values for key, values in when.items())


def _sort_parents_first(entries: dict[str, Any]) -> dict[str, Any]:
    """Order dimensions so that a condition's dimension is drawn before what depends on it.

    Raises:
        ValueError: Where a condition names no dimension, or conditions form a circle.
    """
    ordered: dict[str, Any] = {}

    def insert(path: str, chain: tuple[str, ...]) -> None:
        if path in chain:
            raise ValueError(f"conditions form a circle: {' -> '.join((*chain, path))}")
        entry = entries[path]
        when = entry.get("when") if isinstance(entry, dict) else None
        for parent in when if isinstance(when, dict) else ():
            if parent not in entries:
                raise ValueError(f"{path}: when: {parent}: is not in the space")
            if parent not in ordered:
                insert(parent, (*chain, path))
        ordered[path] = entry

    for path in entries:
        if path not in ordered:
            insert(path, ())
    return ordered
