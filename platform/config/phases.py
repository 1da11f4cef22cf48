"""Phases of a training: steps that have a transform of their own."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ...datasets.transforms import TransformConfig

# An evaluation has no phases: what it reads is the same for the whole run.
_OF_EVALUATIONS = ("mean", "std", "test_box", "ignore_label")


class TransformPhase(BaseModel):
    """A phase before the last one, which has `data.transform` as it stands.

    Attributes:
        until: Where it ends: the number of optimizer steps done by then (a whole number), or their
            share of `trainer.max_steps` (a number between 0 and 1).
        transform: Fields of `data.transform` that differ, any but `mean`, `std`, `test_box` and
            `ignore_label`, which evaluations share.
        cost: Cost of a step as a share of a step of the last phase; None takes the crops' areas.
            It weighs in `optimizer.decay_over: cost` alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    until: int | float = Field(gt=0)
    transform: dict[str, Any] = {}
    cost: float | None = Field(default=None, gt=0)


class Phase(NamedTuple):
    """One phase of a training.

    Attributes:
        first: Optimizer steps done where it begins.
        transform: What rows go through.
        cost: Cost of one of its steps; 1 in the last phase.
    """

    first: int
    transform: TransformConfig
    cost: float


def list_phases(
    transform: TransformConfig, phases: Sequence[TransformPhase], max_steps: int
) -> list[Phase]:
    """List the phases of a training, in order; a single one where none is configured.

    Args:
        transform: `data.transform`.
        phases: `data.phases`.
        max_steps: Optimizer steps of the whole training.

    Raises:
        ValueError: Names a phase whose transform cannot be, or whose end is not behind the one
            before it and before the training's.
    """
    listed: list[Phase] = []
    first = 0
    for number, phase in enumerate(phases):
        key = f"data.phases.{number}"
        end = _end(phase.until, max_steps)
        if not first < end < max_steps:
            raise ValueError(
                f"{key}.until: {phase.until} is step {end}, which must lie after step {first}, "
                f"where the phase begins, and before trainer.max_steps ({max_steps})"
            )
        try:
            changed = change_transform(transform, phase.transform)
        except ValueError as error:
            raise ValueError(f"{key}.transform.{error}") from error
        cost = phase.cost
        if cost is None:
            cost = _area(changed) / _area(transform)
        listed.append(Phase(first, changed, cost))
        first = end
    return [*listed, Phase(first, transform, 1.0)]


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase of the optimizer step after `step` steps."""
    return next(phase for phase in reversed(phases) if phase.first <= step)


def cost_before(phases: Sequence[Phase], step: int) -> float:
    """Cost of the first `step` steps, in steps of the last phase."""
    ends = [*(phase.first for phase in phases[1:]), step]
    return sum(
        phase.cost * (min(end, step) - phase.first)
        for phase, end in zip(phases, ends, strict=True)
        if phase.first < step
    )


def change_transform(transform: TransformConfig, changes: Mapping[str, Any]) -> TransformConfig:
    """A transform with some fields changed.

    Args:
        transform: The transform.
        changes: Field -> value as JSON has it.

    Raises:
        ValueError: Names the field and the rule.
    """
    for name in changes:
        if name in _OF_EVALUATIONS:
            raise ValueError(f"{name}: it is also the evaluations', which have no phases")
    kind = TypeAdapter(TransformConfig)
    tree = json.loads(kind.dump_json(transform))
    try:
        return kind.validate_json(json.dumps({**tree, **changes}))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        rule = fault["msg"].removeprefix("Value error, ")
        key = key or rule.partition(" ")[0]
        raise ValueError(f"{key}: {rule}") from error


def _end(until: int | float, max_steps: int) -> int:
    """Steps done where a phase ends; a share is rounded half up."""
    return until if isinstance(until, int) else int(until * max_steps + 0.5)


def _area(transform: TransformConfig) -> int:
    return transform.crop[0] * transform.crop[1]
