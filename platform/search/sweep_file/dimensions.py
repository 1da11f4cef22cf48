"""One dimension of a sweep's space: choices, whole numbers, or numbers, and what may be drawn."""

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar = bool | int | float | str | None
# Above, a float cannot tell a step from the next one.
_MOST_STEPS = 2**53
# A tenth ten times is a bit less than 1; in steps.
_ROUNDING = 1e-9
_FLOAT_ROUNDING = 1e-15


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
    def _list_single_conditions(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("when"), dict):
            conditions = {
                key: value if isinstance(value, list) else [value]
                for key, value in content["when"].items()
            }
            return {**content, "when": conditions}
        return content


class Choices(_Dimension):
    """A value out of a list, in the list's order for grids.

    Attributes:
        choices: Scalars, or lists (such as channel widths).
        when: Other dimension -> values at which this one is there at all.
    """

    kind: Literal["choices"] = "choices"
    choices: list[Any] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_choices_differ(self) -> "Choices":
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
        is_choice = encode(value) in [encode(choice) for choice in self.choices]
        return None if is_choice else f"must be one of {self.choices}"


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
        return trial.suggest_int(path, self.low, self._last(), step=self.step, log=self.log)

    def count(self) -> int:
        """Number of values."""
        return (self.high - self.low) // self.step + 1

    def listed(self) -> range:
        """Every value."""
        return range(self.low, self.high + 1, self.step)

    def corners(self) -> list[int]:
        """The first and the last value."""
        return sorted({self.low, self._last()})

    def _last(self) -> int:
        # Optuna warns of a range whose end is not on a step.
        return self.listed()[-1]

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
        last = self._last()
        return self.exact(trial.suggest_float(path, self.low, last, step=self.step, log=self.log))

    def count(self) -> int | None:
        """Number of values; None where there is no step, unless low is high."""
        if self.step is None:
            return 1 if self.low == self.high else None
        return int((self.high - self.low) / self.step + _ROUNDING) + 1

    def listed(self) -> list[float] | None:
        """Every value, which may be many; None where there is no step."""
        count = self.count()
        return None if count is None else [self._at(index) for index in range(count)]

    def corners(self) -> list[float]:
        """The first and the last value."""
        return sorted({self.low, self._last()})

    def _last(self) -> float:
        # Optuna warns of a range whose end is not on a step.
        count = self.count()
        return self.high if count is None else self._at(count - 1)

    def _at(self, index: int) -> float:
        if self.step is None:
            return self.low
        # In decimals, as the file has them: three tenths are 0.3, not 0.30000000000000004.
        value = Decimal(repr(self.low)) + index * Decimal(repr(self.step))
        return min(float(value), self.high)

    def exact(self, value: float) -> float:
        """Round a value to the nearest step; a dimension without steps leaves it as it is."""
        if self.step is None:
            return value
        return self._at(round((value - self.low) / self.step))

    def broken_rule(self, value: Any) -> str | None:
        """The rule that a value breaks; None for a value that may be drawn."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and self.low <= value <= self.high:
            near = _ROUNDING * (self.step or 1.0)
            if math.isclose(value, self.exact(value), rel_tol=_FLOAT_ROUNDING, abs_tol=near):
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


def encode(value: Any) -> Scalar:
    """Encode a choice as Optuna can store it: lists and mappings as JSON text."""
    return json.dumps(value) if isinstance(value, list | dict) else value
