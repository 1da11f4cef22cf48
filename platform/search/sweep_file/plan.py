"""A sweep recipe to a checked plan: everything that can be refused is refused before any trial."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.errors import ConfigError, nearest, validate_tree
from ...config.recipes import (
    PLACES,
    Resolved,
    load_experiment,
    override,
    parse_overrides,
    recipe_names,
    split_override,
)
from ...config.typed_paths import resolve_path
from ...config.yaml_source import read_yaml
from .dimensions import Choices
from .measured_metrics import check_metrics
from .schema import SweepRecipe, geometric_rungs
from .space import Point, Space, active

SWEEPS = Path(__file__).resolve().parents[3] / "jobs" / "sweeps"
_ALL_COMBINATIONS = 256
_BUDGET = "must be the same in all trials, which are compared at equal steps; give it in overrides"
_MEASURED = "must be the same in all trials, or they measure different things; give it in overrides"
# What a sweep does not vary, and why.
_SHARED = {
    "trainer.workers": "workers_per_trial decides this",
    "trainer.max_steps": _BUDGET,
    "trainer.evaluate_every": _BUDGET,
    "trainer.energy_images": _MEASURED,
    "trainer.test": "no trial scores test, best.yaml does",
    "data.path": _MEASURED,
    "data.task": _MEASURED,
    "tracking": "all trials are recorded in one way; give it in overrides",
    "name": "trials are named by the sweep",
}


@dataclass(frozen=True)
class SweepRequest:
    """What a sweep was asked for, so that it can be read again from any folder.

    Attributes:
        recipe: Name of a shipped sweep, or absolute path of a file.
        overrides: Items `field=value`; local paths in them are absolute.
    """

    recipe: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class SweepPlan:
    """A recipe whose space was checked against its base.

    Attributes:
        recipe: The recipe.
        base: The experiment every trial starts from; its `trainer.workers` are the trial's.
        rungs: Training steps at which trials are compared.
        points: Points that are tried first, in this order (`first`, then the grid).
        request: What was asked for; None where the recipe came from no file.
    """

    recipe: SweepRecipe
    base: Resolved
    rungs: tuple[int, ...]
    points: tuple[Point, ...]
    request: SweepRequest | None = None

    @property
    def trials(self) -> int:
        """Trials of the whole sweep: the recipe's number, else all listed points."""
        return self.recipe.trials or len(self.points)

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
    path = find_sweep(recipe)
    content, lines = read_yaml(path)
    of_recipe = [item for item in overrides if item.startswith("sweep.")]
    parsed = _parse(content, lines, path, of_recipe)
    of_base = [item for item in overrides if item not in of_recipe]
    plan = check_plan(parsed, lines, str(path), of_base)
    return dataclasses.replace(plan, request=make_request(recipe, overrides))


def make_request(recipe: str, overrides: Sequence[str]) -> SweepRequest:
    """Make paths of a request absolute, so that it means the same from any folder.

    Args:
        recipe: Name of a shipped sweep, or path of a YAML file.
        overrides: Items `field=value`.
    """
    absolute = []
    for item in overrides:
        key, value = split_override(item)
        local = key in PLACES and "://" not in value
        local = local or (key == "sweep.base" and Path(value).is_file())
        absolute.append(f"{key}={_resolve(item, key, value)}" if local else item)
    where = recipe if recipe in sweep_names() else str(Path(recipe).absolute())
    return SweepRequest(where, tuple(absolute))


def _resolve(item: str, key: str, value: str) -> str:
    """The absolute path of an override's value; null stays null."""
    path = value if key == "sweep.base" else parse_overrides([item])[key]
    return "null" if path is None else str(resolve_path(path))


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
    given = set(parse_overrides(overrides))
    if "trainer.workers" in given:
        raise ConfigError(
            "command line: trainer.workers: a sweep's trials have workers_per_trial instead; give "
            "sweep.workers_per_trial=N"
        )
    _check_dimensions(recipe.space, lines, source)
    at = lines.get("base", source)
    found = find_base(recipe.base, at, source)
    try:
        # Until the recipe's own overrides are in, no number of workers is sure to fit.
        # A base may leave values to its data, so this is what has to be known first.
        base = load_experiment(
            found,
            [*overrides, "trainer.workers=0"],
            values=_data_path(recipe.overrides, at),
            origin=at,
        )
    except ConfigError as error:
        raise error if overrides else ConfigError(f"{at}: base: {error}") from error
    for index, item in enumerate(recipe.overrides):
        at = lines.get(f"overrides.{index}", source)
        values = parse_overrides([item], at)
        for key in values:
            _check_not_varied(recipe.space, key, at)
        base = override(base, {k: v for k, v in values.items() if k not in given}, at)
    for key in given:
        _check_not_varied(recipe.space, key, "command line")
    workers = recipe.workers_per_trial
    at = lines.get("workers_per_trial", source)
    base = override(base, {"trainer.workers": 0 if workers == 1 else workers}, at)
    if base.config.tracking.first_step is None:
        # A picture of seconds, which a single training has once and a sweep would have each time.
        base = override(base, {"tracking.first_step": False}, at)
    if base.config.trainer.patience is not None or "trainer.patience" in recipe.space.dimensions:
        raise ConfigError(
            f"{base.origins.get('trainer.patience', source)}: trainer.patience: must be null in a "
            "sweep, where a trial that ends before its full budget has no result; pruner stops "
            "trials early"
        )
    check_metrics(recipe, base.config, lines, source)
    _check_corners(recipe, base, lines, source)
    points = _points(recipe, base, lines, source)
    return SweepPlan(recipe, base, _rungs(recipe, base, lines, source), tuple(points))


def _data_path(items: Sequence[str], origin: str) -> dict[str, object]:
    """The last data.path of a sweep's own overrides; each is checked where it is applied."""
    paths = [item for item in items if item.startswith("data.path=")]
    return parse_overrides(paths, origin)


def find_base(base: str, at: str, source: str) -> str:
    """A base as `load_experiment` finds it: shipped, in the working folder, beside the sweep."""
    beside = Path(source).parent / base
    if base in recipe_names() or Path(base).is_file():
        return base
    if beside.is_file():
        return str(beside)
    raise ConfigError(
        f"{at}: base: recipe {base!r} is neither a shipped recipe nor a file"
        f"{nearest(base, recipe_names())}; shipped: {', '.join(recipe_names())}"
    )


def find_sweep(recipe: str) -> Path:
    """Find the file of a sweep: a shipped one by its name, or a file."""
    if recipe in sweep_names():
        return SWEEPS / f"{recipe}.yaml"
    if Path(recipe).is_file():
        return Path(recipe).resolve()
    raise ConfigError(
        f"sweep {recipe!r} is neither a shipped sweep nor a file{nearest(recipe, sweep_names())}; "
        f"shipped: {', '.join(sweep_names())}"
    )


def _parse(content: Any, lines: dict[str, str], path: Path, own: Sequence[str]) -> SweepRecipe:
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a sweep is a mapping, got {type(content).__name__}")
    for name, value in parse_overrides(own).items():
        key = name.removeprefix("sweep.")
        *parents, last = _parts(key, content, value)
        node = content
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                is_list = isinstance(node, list)
                rule = "a list, give it whole" if is_list else "a value, not a mapping"
                raise ConfigError(f"command line: sweep.{key}: {name} is {rule}")
        node[last] = value
        for below in [name for name in lines if name.startswith(f"{key}.")]:
            del lines[below]
        lines.update(dict.fromkeys(_keys(key, node[last]), "command line"))
    return validate_tree(SweepRecipe, content, lines, source=str(path), prefix="sweep.")


def _keys(key: str, value: Any) -> Iterator[str]:
    """A key and all keys below it."""
    yield key
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _keys(f"{key}.{name}", item)


def _parts(key: str, content: Mapping[str, Any], value: Any) -> list[str]:
    """A key of the recipe in its parts; the name of a dimension, which holds dots, is one.

    Raises:
        ConfigError: Where it is about a part of a dimension that is not there.
    """
    space = content.get("space")
    for path in space if isinstance(space, dict) else ():
        if f"{key}.".startswith(f"space.{path}."):
            below = key.removeprefix(f"space.{path}.")
            if below.startswith("when."):
                return ["space", str(path), "when", below.removeprefix("when.")]
            return ["space", str(path), *(below.split(".") if below != key else ())]
    name = key.removeprefix("space.")
    if name == key:
        return key.split(".")
    if not isinstance(value, dict):
        near = nearest(name, [str(path) for path in space or ()])
        raise ConfigError(
            f"command line: sweep.{key}: no such dimension{near}; a new one is given whole: "
            "sweep.space.FIELD={low: 1, high: 8}"
        )
    return ["space", name]


def _check_not_varied(space: Space, key: str, at: str) -> None:
    for path in space.dimensions:
        if f"{key}.".startswith(f"{path}."):
            raise ConfigError(f"{at}: {key}: the sweep varies this field itself")


def _check_dimensions(space: Space, lines: Mapping[str, str], source: str) -> None:
    """Refuse fields that all trials must share, and dimensions that would overwrite others."""
    for path in space.dimensions:
        at = lines.get(f"space.{path}", source)
        for key, rule in _SHARED.items():
            if f"{key}.".startswith(f"{path}.") or path.startswith(f"{key}."):
                raise ConfigError(f"{at}: {max(path, key, key=len)}: {rule}")
        for other in space.dimensions:
            if other.startswith(f"{path}."):
                raise ConfigError(f"{at}: {path}: overwrites {other}, which the sweep varies too")


def _read_back(resolved: Resolved, path: str) -> str:
    """A field as the configuration has it: 1, 1.0 and true are the same number."""
    node = json.loads(resolved.config.model_dump_json())
    for part in path.split("."):
        node = node[part]
    return json.dumps(node)


def _check_corners(
    recipe: SweepRecipe, base: Resolved, lines: Mapping[str, str], source: str
) -> None:
    """Try every choice, the few values or both ends of every range, then combinations of these."""
    read: dict[str, list[str]] = {path: [] for path in recipe.space.dimensions}
    for path, value, point in recipe.space.corner_points():
        at = lines.get(f"space.{path}", source)
        dimension, before = recipe.space.dimensions[path], read[path]
        if isinstance(dimension, Choices):
            at = lines.get(f"space.{path}.choices.{len(before)}", at)
        origins = {key: lines.get(f"space.{key}", source) for key in point} | {path: at}
        meant = _read_back(override(base, point, origins), path)
        if isinstance(dimension, Choices) and meant in before:
            same = dimension.choices[before.index(meant)]
            raise ConfigError(f"{at}: {path}: got {value!r}: means the same as {same!r}")
        before.append(meant)
    at = lines.get("space", source)
    for point in itertools.islice(recipe.space.corner_combinations(), _ALL_COMBINATIONS):
        try:
            override(base, point, at)
        except ConfigError as error:
            raise ConfigError(f"{error} (the values together: {point})") from error


def _points(
    recipe: SweepRecipe, base: Resolved, lines: Mapping[str, str], source: str
) -> list[Point]:
    points: list[Point] = []
    for index, point in enumerate(recipe.first):
        at = lines.get(f"first.{index}", source)
        for key, value in point.items():
            check_member(recipe.space, key, value, point, f"{at}: first")
        point = {key: recipe.space.exact(key, value) for key, value in point.items()}
        override(base, point, at)
        if recipe.sampler.name == "grid" and not recipe.space.is_whole(point):
            raise ConfigError(f"{at}: first: leaves something to be drawn, which a grid does not")
        if point in points and recipe.space.is_whole(point):
            raise ConfigError(
                f"{at}: first: the same point as first.{points.index(point)}; it would be trained "
                "twice, to the same end"
            )
        points.append(point)
    if recipe.sampler.name == "grid":
        try:
            points += [point for point in recipe.space.grid() if point not in points]
        except ValueError as error:
            raise ConfigError(f"{lines.get('space', source)}: space: {error}") from error
    return points


def check_member(space: Space, key: str, value: Any, point: Point, at: str) -> None:
    """Refuse a value that no trial of a space may have.

    Args:
        space: The space.
        key: The dimension.
        value: Its value.
        point: The whole point, which decides whether the dimension is there at all.
        at: What errors name as the source.

    Raises:
        ConfigError: Names source, key, value and rule.
    """
    dimension = space.dimensions.get(key)
    if dimension is None:
        near = nearest(key, list(space.dimensions))
        raise ConfigError(f"{at}: {key}: not in the space{near}")
    if not active(dimension.when, point):
        raise ConfigError(f"{at}: {key}: its condition {dimension.when} does not hold here")
    rule = dimension.broken_rule(value)
    if rule is not None:
        raise ConfigError(f"{at}: {key}: got {value!r}: {rule}")


def _rungs(
    recipe: SweepRecipe, base: Resolved, lines: Mapping[str, str], source: str
) -> tuple[int, ...]:
    trainer = base.config.trainer
    every, last = trainer.evaluate_every, trainer.max_steps
    if recipe.pruner.rungs is None:
        first = every * recipe.pruner.grace
        return tuple(geometric_rungs(first, last, recipe.pruner.eta))
    for step in recipe.pruner.rungs:
        if step % every or not 0 < step < last:
            raise ConfigError(
                f"{lines.get('pruner.rungs', source)}: pruner.rungs: got {step}: must be a "
                f"multiple of trainer.evaluate_every ({every}) below trainer.max_steps ({last})"
            )
    return tuple(sorted(recipe.pruner.rungs))
