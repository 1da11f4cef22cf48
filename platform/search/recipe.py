"""Sweep recipes: YAML to a checked plan; every point's corners are tried on the model first."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..config import ConfigError, Resolved, load_experiment, override
from ..yaml_source import parse_value, read_yaml
from .rungs import Halving, Median, NonDominated, NoRule, RungRule, geometric_rungs
from .space import Choices, Point, Space, active, encode

SWEEPS = Path(__file__).resolve().parents[2] / "jobs" / "sweeps"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Objective(_Section):
    """A metric of the last evaluation, and which way is better."""

    metric: str
    direction: Literal["maximize", "minimize"]

    @property
    def sign(self) -> int:
        """Factor that makes smaller better."""
        return -1 if self.direction == "maximize" else 1


class Sampler(_Section):
    """Who proposes points.

    Attributes:
        name: Optuna's `tpe`, `nsga2`, `random`, `gp`; or `grid` (every combination, in order), or
            `listed` (the points of `first`, nothing else).
        seed: Trial n's proposal depends on this, on n, and on what was told before.
        startup: Random trials before `tpe` and `gp` begin to model.
        population: Trials of one generation of `nsga2`.
    """

    name: Literal["tpe", "nsga2", "random", "gp", "grid", "listed"]
    seed: int = Field(ge=0, lt=2**32)
    startup: int = Field(default=10, ge=1)
    population: int = Field(default=20, ge=2)


class Limit(_Section):
    """A bound on a metric; as a constraint on the result, or as a reason to stop early.

    Attributes:
        metric: Name as in MLflow (`energy/mJ`, `snn/dead_fraction`, …).
        at_most: Largest value allowed.
        at_least: Smallest value allowed.
        after: Training step from which it counts, where it stops trials.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    after: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_bound(self) -> "Limit":
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give exactly one of at_most and at_least")
        return self

    def excess(self, value: float) -> float:
        """By how much a value breaks the bound; at most 0 where it holds."""
        if self.at_most is not None:
            return value - self.at_most
        assert self.at_least is not None
        return self.at_least - value

    def __str__(self) -> str:
        bound = f"<= {self.at_most}" if self.at_most is not None else f">= {self.at_least}"
        return f"{self.metric} {bound}"


class Pruner(_Section):
    """Which trials are stopped before their full budget (rules: `rungs.py`).

    Attributes:
        rule: `halving` and `median` for one objective, `non_dominated` for several.
        eta: Share 1 / eta goes on at each rung.
        minimum: With fewer values than this at a rung, everyone goes on.
        rungs: Training steps with an evaluation; None: evaluate_every x 1, eta, eta^2, ….
        by_crowding: Whether `non_dominated` thins out wide layers, too.
        limits: Bounds that stop a trial at any evaluation.
    """

    rule: Literal["none", "halving", "median", "non_dominated"] = "none"
    eta: int = Field(default=2, ge=2)
    minimum: int = Field(default=3, ge=2)
    rungs: list[int] | None = None
    by_crowding: bool = True
    limits: list[Limit] = []

    def build(self) -> RungRule:
        """The rule as an object."""
        rules: dict[str, RungRule] = {
            "none": NoRule(),
            "halving": Halving(eta=self.eta, minimum=self.minimum),
            "median": Median(minimum=self.minimum),
            "non_dominated": NonDominated(
                eta=self.eta, minimum=self.minimum, by_crowding=self.by_crowding
            ),
        }
        return rules[self.rule]


class Resources(_Section):
    """What one trial takes from the cluster."""

    cpu: float = Field(default=1.0, ge=0)
    gpu: float = Field(default=0.0, ge=0)


class SweepRecipe(_Section):
    """A sweep as a file says it.

    Attributes:
        name: First part of the sweep's name.
        base: Recipe that every trial starts from.
        overrides: Items `field=value` on top of the base.
        trials: Trials of the whole sweep, where the command does not say.
        objectives: One or more.
        sampler: Who proposes points.
        pruner: Who stops trials early.
        space: Dotted key -> dimension.
        first: Points tried before all others; what a point leaves out is drawn.
        constraints: Bounds that a trial must keep to count as a result.
        resources: What one trial takes.
        workers_per_trial: 1 trains in the trial's process.
        concurrency: Trials at once; None for as many as fit.
        max_failures: Deaths of a trial's process that are survived.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    base: str
    overrides: list[str] = []
    trials: int = Field(ge=1)
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

    @model_validator(mode="before")
    @classmethod
    def _wrap_space(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("space"), dict):
            if set(given["space"]) == {"dimensions"}:
                return given
            return {**given, "space": {"dimensions": given["space"]}}
        return given

    @model_validator(mode="after")
    def _rule_fits_objectives(self) -> "SweepRecipe":
        several = len(self.objectives) > 1
        if several and self.pruner.rule in ("halving", "median"):
            raise ValueError(
                f"pruner.rule {self.pruner.rule!r} needs one objective, got "
                f"{len(self.objectives)}; 'non_dominated' takes several"
            )
        if self.sampler.name == "listed" and not self.first:
            raise ValueError("sampler.name 'listed' needs points in first")
        return self


@dataclass(frozen=True)
class SweepPlan:
    """A recipe whose space was checked against its base.

    Attributes:
        recipe: The recipe.
        base: The experiment every trial starts from.
        rungs: Training steps at which trials are compared.
        points: Points that are tried first, in this order (`first`, then the grid).
    """

    recipe: SweepRecipe
    base: Resolved
    rungs: tuple[int, ...]
    points: tuple[Point, ...]

    def experiment(self, point: Mapping[str, Any]) -> Resolved:
        """The experiment of one trial.

        Raises:
            ConfigError: Where the model refuses this combination.
        """
        return override(self.base, point, "sweep")


def sweep_names() -> list[str]:
    """Names of the shipped sweeps."""
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def load_sweep(recipe: str, overrides: Sequence[str] = ()) -> SweepPlan:
    """Read a sweep recipe and check it against the configuration tree.

    Args:
        recipe: Name of a shipped sweep, or path of a YAML file.
        overrides: Items `a.b=c` for the base experiment, or `sweep.a.b=c` for the recipe itself.

    Raises:
        ConfigError: Names file and line (or "command line"), key, value and rule.
    """
    path = _find(recipe)
    content, lines = read_yaml(path)
    own = [item for item in overrides if item.startswith("sweep.")]
    parsed = _parse(content, lines, path, own)
    return check_plan(parsed, lines, str(path), [item for item in overrides if item not in own])


def check_plan(
    recipe: SweepRecipe, lines: Mapping[str, str], source: str, overrides: Sequence[str] = ()
) -> SweepPlan:
    """Check a parsed recipe against the configuration tree.

    Args:
        recipe: The recipe.
        lines: Dotted key of the recipe -> "file:line".
        source: What errors name where `lines` does not know the key.
        overrides: Items `a.b=c` for the base experiment; they win over the recipe's.

    Raises:
        ConfigError: Names file and line, key, value and rule.
    """
    try:
        base = load_experiment(recipe.base, overrides)
    except ConfigError as error:
        at = lines.get("base", source)
        raise error if overrides else ConfigError(f"{at}: base: {error}") from error
    given = {item.partition("=")[0] for item in overrides}
    for index, item in enumerate(recipe.overrides):
        key, separator, text = item.partition("=")
        at = lines.get(f"overrides.{index}", source)
        if not separator:
            raise ConfigError(f"{at}: {item!r} is not of the form field=value")
        if key not in given:
            base = override(base, {key: parse_value(text)}, at)
    for path in recipe.space.dimensions:
        if path in given:
            raise ConfigError(f"command line: {path}: the sweep varies this field itself")
    _check_corners(recipe, base, lines, source)
    points = _points(recipe, base, lines, source)
    return SweepPlan(recipe, base, _rungs(recipe, base, lines, source), tuple(points))


def _find(recipe: str) -> Path:
    if recipe in sweep_names():
        return SWEEPS / f"{recipe}.yaml"
    if Path(recipe).is_file():
        return Path(recipe).resolve()
    close = difflib.get_close_matches(recipe, sweep_names(), n=1, cutoff=0.5)
    near = f", did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"sweep {recipe!r} is neither a shipped sweep nor a file{near}; "
        f"shipped: {', '.join(sweep_names())}"
    )


def _parse(content: Any, lines: dict[str, str], path: Path, own: Sequence[str]) -> SweepRecipe:
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a sweep is a mapping, got {type(content).__name__}")
    for item in own:
        key, separator, text = item.removeprefix("sweep.").partition("=")
        if not separator:
            raise ConfigError(f"command line: {item!r} is not of the form field=value")
        *parents, last = key.split(".")
        node = content
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f"command line: {key}: {name} is a value, not a mapping")
        try:
            node[last] = parse_value(text)
        except ValueError as error:
            raise ConfigError(f"command line: sweep.{key}: {error}") from error
        lines[key] = "command line"
    try:
        return SweepRecipe.model_validate(content)
    except ValidationError as error:
        sentences = [_sentence(item, lines, path) for item in error.errors()]
        raise ConfigError("\n".join(sentences)) from error


def _sentence(item: Any, lines: Mapping[str, str], path: Path) -> str:
    tags = {"dimensions", "choices", "int", "float"}
    location = [str(part) for part in item["loc"]]
    if location[:2] == ["space", "dimensions"]:
        # pydantic adds the wrapper's name and the kind of dimension to the place of an error.
        location = [
            location[0],
            *location[2:3],
            *(p for p in location[3:4] if p not in tags),
            *location[4:],
        ]
    key = ".".join(location)
    where = str(path)
    for length in range(len(location), 0, -1):
        if ".".join(location[:length]) in lines:
            where = lines[".".join(location[:length])]
            break
    if item["type"] == "missing":
        return f"{where}: {key}: required, and not given"
    if item["type"] == "extra_forbidden":
        known = SweepRecipe.model_fields if len(location) == 1 else {}
        close = difflib.get_close_matches(location[-1], list(known), n=1, cutoff=0.5)
        near = f", did you mean {close[0]!r}?" if close else ""
        return f"{where}: {key}: no such field{near}"
    rule = item["msg"].removeprefix("Value error, ")
    # A rule over a whole section would print the section.
    got = f"got {item['input']!r}: " if not isinstance(item["input"], dict) else ""
    return f"{where}: {key + ': ' if key else ''}{got}{rule}"


def _check_corners(
    recipe: SweepRecipe, base: Resolved, lines: Mapping[str, str], source: str
) -> None:
    """Try every choice and both ends of every range on the model, before any trial."""
    for path, value, point in recipe.space.corner_points():
        at = lines.get(f"space.{path}", source)
        dimension = recipe.space.dimensions[path]
        if isinstance(dimension, Choices):
            index = dimension.choices.index(value)
            at = lines.get(f"space.{path}.choices.{index}", at)
        override(base, point, at)


def _points(
    recipe: SweepRecipe, base: Resolved, lines: Mapping[str, str], source: str
) -> list[Point]:
    points: list[Point] = []
    for index, point in enumerate(recipe.first):
        at = lines.get(f"first.{index}", source)
        for key, value in point.items():
            _check_member(recipe.space, key, value, point, at)
        override(base, point, at)
        points.append(point)
    if recipe.sampler.name == "grid":
        try:
            points += [point for point in recipe.space.grid() if point not in points]
        except ValueError as error:
            raise ConfigError(f"{lines.get('space', source)}: space: {error}") from error
    return points


def _check_member(space: Space, key: str, value: Any, point: Point, at: str) -> None:
    dimension = space.dimensions.get(key)
    if dimension is None:
        close = difflib.get_close_matches(key, list(space.dimensions), n=1, cutoff=0.5)
        near = f", did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{at}: first: {key}: not in the space{near}")
    if not active(dimension.when, point):
        raise ConfigError(f"{at}: first: {key}: its condition {dimension.when} does not hold here")
    if isinstance(dimension, Choices):
        if encode(value) not in [encode(choice) for choice in dimension.choices]:
            raise ConfigError(
                f"{at}: first: {key}: got {value!r}: must be one of {dimension.choices}"
            )
    elif not isinstance(value, int | float) or not dimension.low <= value <= dimension.high:
        raise ConfigError(
            f"{at}: first: {key}: got {value!r}: must be in [{dimension.low}, {dimension.high}]"
        )


def _rungs(
    recipe: SweepRecipe, base: Resolved, lines: Mapping[str, str], source: str
) -> tuple[int, ...]:
    trainer = base.config.trainer
    every, last = trainer.evaluate_every, trainer.max_steps
    if recipe.pruner.rungs is None:
        return tuple(geometric_rungs(every, last, recipe.pruner.eta))
    for step in recipe.pruner.rungs:
        if step % every or not 0 < step < last:
            raise ConfigError(
                f"{lines.get('pruner.rungs', source)}: pruner.rungs: got {step}: must be a "
                f"multiple of trainer.evaluate_every ({every}) below trainer.max_steps ({last})"
            )
    return tuple(sorted(recipe.pruner.rungs))
