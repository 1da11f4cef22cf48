"""The fields of a sweep recipe, with types, ranges and defaults; `plan.py` checks it as a whole."""

import itertools
import re
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from .space import Space

# Ray cuts finer shares off, and then cannot place what is left of them.
_SHARE = 0.0001
_ROUNDING = 1e-6


# Fields that came later -> the value that changes nothing.
_LATER: dict[str, Any] = {"replicates": None, "budget": None, "candidates": 1, "grace": 1}
_BUDGET = r"^[0-9]+(\.[0-9]+)?[smhd]$"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_serializer(mode="wrap")
    def _leave_out_later_fields(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Sweeps that were begun before there were these fields are compared with this.
        content = dump(self)
        return {k: v for k, v in content.items() if k not in _LATER or v != _LATER[k]}


class Objective(_Section):
    """A metric of the last evaluation, and which way is better.

    Attributes:
        metric: Name as in MLflow (`val/mIoU`, `energy/mJ`, …).
        direction: Which way is better.
        reference: A value that is worse than any of interest; with one for each of two
            objectives, the hypervolume of the front is followed while the sweep runs.
    """

    metric: str
    direction: Literal["maximize", "minimize"]
    reference: FiniteFloat | None = None

    @property
    def sign(self) -> int:
        """Factor that makes smaller better."""
        return -1 if self.direction == "maximize" else 1


class Sampler(_Section):
    """How points are proposed.

    Attributes:
        name: Optuna's `tpe`, `nsgaii`, `nsgaiii`, `random`, `gp`; or `grid` (every combination, in
            order), or `listed` (the points of `first`, nothing else).
        seed: Trial n's proposal depends on this, on n, and on the trials before it.
        startup: Random trials before `tpe` and `gp` begin to model.
        population: Trials of one generation of `nsgaii` and `nsgaiii`, which breed from finished
            trials alone: where a pruner stops most, few generations are left.
        candidates: Points that are proposed for a trial once `startup` trials are results; the one
            that is expected to take the least time is tried. 1 asks for no other.
    """

    name: Literal["tpe", "nsgaii", "nsgaiii", "random", "gp", "grid", "listed"]
    seed: int = Field(ge=0, lt=2**32)
    startup: int = Field(default=10, ge=1)
    population: int = Field(default=20, ge=2)
    candidates: int = Field(default=1, ge=1, le=16)


class Limit(_Section):
    """A bound on a metric; as a constraint on the result, or as a reason to stop early.

    Attributes:
        metric: Name as in MLflow (`energy/mJ`, `snn/dead_fraction`, …).
        at_most: Largest value allowed.
        at_least: Smallest value allowed.
        after: Training step from which it counts, where it stops trials.
    """

    metric: str
    at_most: FiniteFloat | None = None
    at_least: FiniteFloat | None = None
    after: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_bound(self) -> "Limit":
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give exactly one of at_most and at_least")
        return self

    def excess(self, value: float) -> float:
        """Distance of a value beyond the bound; at most 0 where the bound holds."""
        if self.at_most is not None:
            return value - self.at_most
        assert self.at_least is not None
        return self.at_least - value

    def __str__(self) -> str:
        bound = f"<= {self.at_most}" if self.at_most is not None else f">= {self.at_least}"
        return f"{self.metric} {bound}"


class Pruner(_Section):
    """Which trials are stopped before their full budget (rules: `study/pruners.py`).

    Attributes:
        rule: `halving` and `median` for one objective, `non_dominated` for several.
        eta: Share 1 / eta goes on at each rung.
        minimum: With fewer values than this at a rung, everyone goes on.
        rungs: Training steps with an evaluation; None: evaluate_every x grace x 1, eta, eta^2, ….
        grace: Evaluations before the first of these rungs. Where curves cross early, 1 stops what
            would have ended well (measured: platform/RESULTS.md); sweeps before had 1.
        by_crowding: Whether `non_dominated` thins out wide layers, too.
        limits: Bounds that stop a trial at any evaluation before its last.
    """

    rule: Literal["none", "halving", "median", "non_dominated"] = "none"
    eta: int = Field(default=2, ge=2)
    minimum: int = Field(default=3, ge=2)
    rungs: list[int] | None = Field(default=None, min_length=1)
    grace: int = Field(default=2, ge=1)
    by_crowding: bool = True
    limits: list[Limit] = []

    @field_validator("rungs")
    @classmethod
    def _rungs_differ(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("must differ")
        return value


class Resources(_Section):
    """What one worker of a trial takes from the cluster; fractions share a device.

    Attributes:
        cpu: CPUs, in steps of 0.0001, the smallest share that Ray knows.
        gpu: GPUs, likewise; above 1 whole ones.
    """

    cpu: FiniteFloat = Field(default=1.0, ge=0)
    gpu: FiniteFloat = Field(default=0.0, ge=0)

    @field_validator("cpu", "gpu")
    @classmethod
    def _can_be_given(cls, value: float, info: ValidationInfo) -> float:
        if info.field_name == "gpu" and value > 1 and not value.is_integer():
            raise ValueError("above 1 must be a whole number")
        if abs(value / _SHARE - round(value / _SHARE)) > _ROUNDING:
            raise ValueError(f"must be a multiple of {_SHARE}")
        return value

    @model_validator(mode="after")
    def _takes_something(self) -> "Resources":
        if self.cpu == 0 and self.gpu == 0:
            raise ValueError("cpu and gpu must not both be 0: nothing would limit the trials")
        return self


class Replicates(_Section):
    """How often a configuration is trained with other seeds, so that its mean has an interval.

    Attributes:
        seeds: Trainings of a group; the same seeds in every group.
        best: Repeat only the best so many configurations (and trial 0, the reference): those whose
            front has the largest hypervolume, where two objectives have a reference each, else by
            layer of the front. The training by which they were chosen is none of the `seeds`. None
            repeats all results.
        stop_error: A group that another one beats clearly in every objective gets no further
            seeds; this is the chance that a group is stopped wrongly. None stops no group.
    """

    seeds: int = Field(ge=2, le=100)
    best: int | None = Field(default=None, ge=1)
    stop_error: FiniteFloat | None = Field(default=0.05, gt=0, lt=1)


class SweepRecipe(_Section):
    """A sweep as a file says it.

    Attributes:
        name: First part of the sweep's name.
        base: Recipe that every trial starts from.
        overrides: Items `field=value` on top of the base.
        trials: Trials of the whole sweep, where the command does not say; may be left out for
            `grid` and `listed`, which then run all their points.
        objectives: One or more.
        sampler: How points are proposed.
        pruner: Which trials are stopped early.
        space: Dotted key -> dimension.
        first: Points tried before all others; what a point leaves out is drawn.
        constraints: Bounds that a trial must keep to count as a result.
        resources: What one trial takes.
        workers_per_trial: 1 trains in the trial's process, more are Ray Train workers; either
            way it replaces `trainer.workers`.
        concurrency: Trials at once; None for as many as fit.
        max_failures: Deaths of a trial's process that are survived.
        replicates: A number of seeds, or a section; None trains every point once. Then `trials`
            counts configurations.
        budget: Device time of all trials, such as `90m`, `2h` or `1.5d` (s, m, h, d): no trial
            begins that would go beyond it. GPUs count where a trial takes any, else CPUs.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    base: str
    overrides: list[str] = []
    trials: int | None = Field(default=None, ge=1)
    objectives: list[Objective] = Field(min_length=1)
    sampler: Sampler
    pruner: Pruner = Pruner()
    space: Space
    first: list[dict[str, Any]] = []
    constraints: list[Limit] = []
    resources: Resources = Resources()
    workers_per_trial: int = Field(default=1, ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    max_failures: int = Field(default=3, ge=0)
    replicates: Replicates | None = None
    budget: str | None = Field(default=None, json_schema_extra={"pattern": _BUDGET})

    @property
    def budget_seconds(self) -> float | None:
        """Seconds that all trials together may take; None without a budget."""
        if self.budget is None:
            return None
        devices = (self.resources.gpu or self.resources.cpu) * self.workers_per_trial
        return float(self.budget[:-1]) * _UNITS[self.budget[-1]] / devices

    @field_validator("budget")
    @classmethod
    def _check_budget(cls, value: str | None) -> str | None:
        if value is not None and re.match(_BUDGET, value) is None:
            raise ValueError("must be a number and s, m, h or d, such as 90m")
        return value

    @field_validator("replicates", mode="before")
    @classmethod
    def _take_number_of_seeds(cls, value: Any) -> Any:
        return {"seeds": value} if type(value) is int else value

    @model_validator(mode="before")
    @classmethod
    def _wrap_space(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("space"), dict):
            if set(content["space"]) == {"dimensions"}:
                return content
            return {**content, "space": {"dimensions": content["space"]}}
        return content

    @model_validator(mode="after")
    def _rule_fits_objectives(self) -> "SweepRecipe":
        several = len(self.objectives) > 1
        if several and self.pruner.rule in ("halving", "median"):
            raise ValueError(
                f"pruner.rule: got {self.pruner.rule!r}: needs one objective, got "
                f"{len(self.objectives)}; 'non_dominated' takes several"
            )
        if self.sampler.name == "listed" and not self.first:
            raise ValueError("sampler.name: got 'listed': needs points in first")
        if self.trials is None and self.sampler.name not in ("grid", "listed"):
            raise ValueError(f"trials: must be given for sampler.name {self.sampler.name!r}")
        limits = {f"constraints.{index}": item for index, item in enumerate(self.constraints)}
        limits |= {f"pruner.limits.{index}": item for index, item in enumerate(self.pruner.limits)}
        _check_contradictions(limits)
        if self.replicates is not None and "seed" in self.space.dimensions:
            raise ValueError("space.seed: replicates gives the seeds; leave one of both out")
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"objectives: must differ, got {', '.join(metrics)}")
        return self


def _check_contradictions(limits: dict[str, Limit]) -> None:
    for (above, upper), (below, lower) in itertools.product(limits.items(), limits.items()):
        if upper.metric != lower.metric or upper.at_most is None or lower.at_least is None:
            continue
        if upper.at_most < lower.at_least:
            raise ValueError(f"{below}: got {lower}: excludes {above}: {upper}")


def geometric_rungs(first: int, last: int, eta: int) -> list[int]:
    """Rungs at first, first * eta, … below the last step; the default of `Pruner.rungs`.

    Args:
        first: Training step of the first rung.
        last: Steps of a full training.
        eta: Ratio of the rungs.
    """
    rungs = []
    step = first
    while step < last:
        rungs.append(step)
        step *= eta
    return rungs
