"""The points a sweep may try: typed dimensions, conditions between them, and grids over them."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..config import takes_fractions

Scalar = bool | int | float | str | None
Point = dict[str, Any]
# Numbers of so few values are checked one by one before a sweep starts.
_ALL_VALUES = 64
_LARGEST_GRID = 100_000
# Above, a float cannot tell a step from the next one.
_MOST_STEPS = 2**53
# A tenth ten times is a bit less than 1; in steps.
_ROUNDING = 1e-9


class Suggester(Protocol):
    """The part of an Optuna trial that a space draws from."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Any:
        """Draw one of the choices."""
        ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Draw a whole number."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Draw a number."""
        ...


class _Dimension(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    when: dict[str, list[Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _single_condition_is_a_list(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("when"), dict):
            conditions = {
                key: value if isinstance(value, list) else [value]
                for key, value in given["when"].items()
            }
            return {**given, "when": conditions}
        return given


class Choices(_Dimension):
    """A value out of a list, in the list's order for grids.

    Attributes:
        choices: Scalars, or lists (such as channel widths).
        when: Other dimension -> values at which this one is there at all.
    """

    kind: Literal["choices"] = "choices"
    choices: list[Any] = Field(min_length=1)

    @model_validator(mode="after")
    def _choices_differ(self) -> "Choices":
        texts = [json.dumps(value) for value in self.choices]
        if len(set(texts)) < len(texts):
            raise ValueError(f"choices must differ, got {', '.join(texts)}")
        return self

    def draw(self, path: str, trial: Suggester) -> Any:
        """Draw one value."""
        coded = trial.suggest_categorical(path, [encode(value) for value in self.choices])
        return next(value for value in self.choices if encode(value) == coded)

    def count(self) -> int:
        """Number of values."""
        return len(self.choices)

    def listed(self) -> list[Any]:
        """Every value."""
        return list(self.choices)

    def corners(self) -> list[Any]:
        """The values that are combined with others before a sweep starts: all of them."""
        return list(self.choices)

    def broken_rule(self, value: Any) -> str | None:
        """The rule that a value breaks; None for a value that may be drawn."""
        there = encode(value) in [encode(choice) for choice in self.choices]
        return None if there else f"must be one of {self.choices}"


class Integers(_Dimension):
    """A whole number in [low, high].

    Attributes:
        low: Smallest value.
        high: Largest value.
        step: Distance between values.
        log: Whether small values get as much room as large ones; then step is 1.
        when: As in `Choices`.
    """

    kind: Literal["int"] = "int"
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _range(self) -> "Integers":
        _check_range(self.low, self.high, self.log, self.step != 1)
        return self

    def draw(self, path: str, trial: Suggester) -> int:
        """Draw one value."""
        return trial.suggest_int(path, self.low, self.high, step=self.step, log=self.log)

    def count(self) -> int:
        """Number of values."""
        return (self.high - self.low) // self.step + 1

    def listed(self) -> range:
        """Every value."""
        return range(self.low, self.high + 1, self.step)

    def corners(self) -> list[int]:
        """The first and the last value."""
        return [self.low, self.listed()[-1]]

    def broken_rule(self, value: Any) -> str | None:
        """The rule that a value breaks; None for a value that may be drawn."""
        if type(value) is int and value in self.listed():
            return None
        steps = "" if self.step == 1 else f" in steps of {self.step}"
        return f"must be a whole number in [{self.low}, {self.high}]{steps}"


class Floats(_Dimension):
    """A number in [low, high].

    Attributes:
        low: Smallest value.
        high: Largest value.
        step: Distance between values; None for any value.
        log: Whether the exponent is drawn evenly; then without step.
        when: As in `Choices`.
    """

    kind: Literal["float"] = "float"
    low: float
    high: float
    step: float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _range(self) -> "Floats":
        _check_range(self.low, self.high, self.log, self.step is not None)
        if self.step is not None and (self.high - self.low) / self.step > _MOST_STEPS:
            raise ValueError(f"step must leave at most {_MOST_STEPS} values, got {self.step}")
        return self

    def draw(self, path: str, trial: Suggester) -> float:
        """Draw one value."""
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)

    def count(self) -> int | None:
        """Number of values; None where there is no step."""
        if self.step is None:
            return None
        return int((self.high - self.low) / self.step + _ROUNDING) + 1

    def listed(self) -> list[float] | None:
        """Every value, which may be many; None where there is no step."""
        count = self.count()
        return None if count is None else [self._at(index) for index in range(count)]

    def corners(self) -> list[float]:
        """The first and the last value."""
        count = self.count()
        return [self.low, self.high if count is None else self._at(count - 1)]

    def _at(self, index: int) -> float:
        assert self.step is not None
        return min(self.low + index * self.step, self.high)

    def broken_rule(self, value: Any) -> str | None:
        """The rule that a value breaks; None for a value that may be drawn."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and self.low <= value <= self.high:
            steps = 0.0 if self.step is None else (value - self.low) / self.step
            if abs(steps - round(steps)) < _ROUNDING:
                return None
        steps = "" if self.step is None else f" in steps of {self.step}"
        return f"must be in [{self.low}, {self.high}]{steps}"


def _check_range(low: float, high: float, log: bool, stepped: bool) -> None:
    if low > high:
        raise ValueError(f"low must not exceed high, got {low} and {high}")
    if log and low <= 0:
        raise ValueError(f"low must be positive where log is true, got {low}")
    if log and stepped:
        raise ValueError("step and log exclude each other")


def _kind(path: str, given: Any) -> Any:
    """Whole numbers make `Integers`, unless the entry or the field says that it is any number."""
    if not isinstance(given, dict) or "kind" in given:
        return given
    if "choices" in given:
        return {**given, "kind": "choices"}
    numbers = [given.get(name) for name in ("low", "high", "step") if given.get(name) is not None]
    whole = bool(numbers) and all(type(number) is int for number in numbers)
    return {**given, "kind": "int" if whole and not takes_fractions(path) else "float"}


class Space(BaseModel):
    """Dotted configuration key -> dimension, with conditions that refer to earlier or later ones.

    Attributes:
        dimensions: In the order in which they are drawn (a condition's dimension comes first).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dimensions: dict[str, Annotated[Choices | Integers | Floats, Field(discriminator="kind")]]

    @model_validator(mode="before")
    @classmethod
    def _name_kinds(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("dimensions"), dict):
            entries = {key: _kind(str(key), value) for key, value in given["dimensions"].items()}
            return {"dimensions": _parents_first(entries)}
        return given

    @model_validator(mode="after")
    def _conditions_can_hold(self) -> "Space":
        for path, dimension in self.dimensions.items():
            for parent, values in dimension.when.items():
                if not values:
                    raise ValueError(f"{path}: when: {parent}: needs at least one value")
                for value in values:
                    rule = self.dimensions[parent].broken_rule(value)
                    if rule is not None:
                        raise ValueError(f"{path}: when: {parent}: got {value!r}: {rule}")
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
        points = 1
        for path, entry in self.dimensions.items():
            count = entry.count()
            if count is None or (isinstance(entry, Integers) and entry.log):
                raise ValueError(f"{path}: a grid needs choices or a step")
            points *= count
        if points > _LARGEST_GRID:
            raise ValueError(f"a grid has at most {_LARGEST_GRID} points, this one has {points}")
        yield from self._combined(
            {path: entry.listed() or [] for path, entry in self.dimensions.items()}
        )

    def _combined(self, listed: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
        seen: set[str] = set()
        for combination in itertools.product(*listed.values()):
            point: Point = {}
            for path, value in zip(listed, combination, strict=True):
                if active(self.dimensions[path].when, point):
                    point[path] = value
            key = json.dumps(point, sort_keys=True)
            if key not in seen:
                seen.add(key)
                yield point

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
                yield path, value, self._completed(required | {path: value})

    def corner_combinations(self) -> Iterator[Point]:
        """Every combination of corners, conditions respected, in order; there may be many."""
        corners = {path: entry.corners() for path, entry in self.dimensions.items()}
        yield from self._combined(corners)

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
            point[path] = stored[path]
            if isinstance(dimension, Choices):
                point[path] = next(v for v in dimension.choices if encode(v) == stored[path])
        return point

    def _required(self, path: str) -> Iterator[Point]:
        """Values of other dimensions under which a dimension is there, every way there is."""
        when = self.dimensions[path].when
        for values in itertools.product(*when.values()):
            given = dict(zip(when, values, strict=True))
            for above in itertools.product(*(self._required(parent) for parent in when)):
                needed = dict(given)
                parts = [item for part in above for item in part.items()]
                if all(needed.setdefault(key, value) == value for key, value in parts):
                    yield needed

    def _completed(self, fixed: Point) -> Point:
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


def encode(value: Any) -> Scalar:
    """A choice as Optuna can store it: lists and mappings as JSON text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _parents_first(entries: dict[str, Any]) -> dict[str, Any]:
    """Order dimensions so that a condition's dimension is drawn before what depends on it.

    Raises:
        ValueError: Where a condition names no dimension, or conditions form a circle.
    """
    ordered: dict[str, Any] = {}

    def place(path: str, chain: tuple[str, ...]) -> None:
        if path in chain:
            raise ValueError(f"conditions form a circle: {' -> '.join((*chain, path))}")
        entry = entries[path]
        when = entry.get("when") if isinstance(entry, dict) else None
        for parent in when if isinstance(when, dict) else ():
            if parent not in entries:
                raise ValueError(f"{path}: when: {parent}: is not in the space")
            if parent not in ordered:
                place(parent, (*chain, path))
        ordered[path] = entry

    for path in entries:
        if path not in ordered:
            place(path, ())
    return ordered
