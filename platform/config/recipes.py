"""Recipes and overrides to one checked experiment; errors name file, line, key and rule."""

import dataclasses
import functools
import hashlib
import json
import operator
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from .data_values import Picked, pick_from_data
from .errors import (
    COMMAND_LINE,
    ConfigError,
    find_origin,
    known_fields,
    nearest,
    validate_tree,
)
from .redaction import TOKEN
from .schema import ExperimentConfig
from .typed_paths import resolve_path
from .yaml_source import parse_value, read_yaml

_CREDENTIALS = re.compile(
    r"://[^\s]*@|[?&][^=&]*(?:token|secret|passw|pwd|sig|key|credential)[^=&]*=", re.IGNORECASE
)
_SOURCE = "configuration"
_SEVERAL = (
    "one run has one value; `spikeseg sweep` tries several: sweep.space.{key}={choices: [{values}]}"
)
ADDED: dict[str, Any] = {
    "data.phases": [],
    "data.transform.decode": "full",
    "data.transform.jitter": None,
    "data.transform.version": 1,
    "loss.lovasz_stride": 2,
    "loss.lovasz_weight": 0.0,
    "model.backbone.normalization": None,
    "model.in_channels": 3,
    "model.query.levels": None,
    "model.query.matching": "hungarian",
    "model.query.normalization": None,
    "model.query.pixel_levels": None,
    "model.query.pixel_normalization": None,
    "optimizer.decay": "poly",
    "optimizer.decay_over": "steps",
    "optimizer.decay_vectors": True,
    "tracking.register": None,
    "tracking.tags": {},
    "trainer.cuda_graph": False,
    "trainer.ema_start": "constant",
    "trainer.memory_format": "auto",
}
"""Fields that came after 0.1, with the values under which they change nothing: left out of digests,
so that an experiment keeps its digest from version to version."""
RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"
PLACES = ("data.path", "init.backbone", "init.segmentor", "tracking.journal")
"""Fields that hold paths, from the working folder, or addresses."""


@dataclass(frozen=True)
class Resolved:
    """A checked configuration and where each of its values came from.

    Attributes:
        config: The configuration.
        origins: Dotted key to "file:line", "command line", "sweep"; keys left out are defaults.
        recipe: Name or path of the recipe that it was read from; empty where it was read back.
        picked: What was picked from the data, where the recipe left it to these.
    """

    config: ExperimentConfig
    origins: dict[str, str]
    recipe: str = ""
    picked: tuple[Picked, ...] = ()


def recipe_names() -> list[str]:
    """Names of the shipped recipes; files that only others extend have no `name` and are none."""
    named = re.compile(r"^name:", re.MULTILINE)
    return sorted(p.stem for p in RECIPES.glob("*.yaml") if named.search(p.read_text()))


def load_experiment(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, object] | None = None,
    origin: str = "overrides",
) -> Resolved:
    """Read a recipe with everything it extends, apply overrides, check the whole.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.
        overrides: Items `a.b=c`, the value in YAML.
        values: Dotted key -> value, set before the overrides; what the recipe leaves to the data
            is picked after both.
        origin: What errors and provenance name as the source of `values`.

    Returns:
        The checked configuration with the origin of its values; paths in it are absolute.

    Raises:
        ConfigError: Names file and line (or "command line"), key, value, rule, nearest name.
    """
    path = _find_recipe(recipe, Path.cwd())
    tree, origins = _read_recipe(path, ())
    for key, value in (values or {}).items():
        _set_value(tree, origins, key, value, origin)
    for key, value in parse_overrides(overrides).items():
        _set_value(tree, origins, key, value, COMMAND_LINE)
    picked = pick_from_data(tree, origins)
    for key, value, reason in picked:
        _set_value(tree, origins, key, value, f"picked from the data: {reason}")
    named = path.stem if path.parent == RECIPES else str(path)
    return dataclasses.replace(_validate(tree, origins), recipe=named, picked=tuple(picked))


def flatten_recipe(recipe: str) -> str:
    """Read a recipe with everything it extends, as YAML that extends nothing.

    What it leaves to the data stays so. Local paths that exist here are absolute.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.

    Raises:
        ConfigError: Where a file cannot be read, or is none of a recipe.
    """
    tree, _ = read_recipe_tree(recipe)
    for key in PLACES:
        section, name = key.split(".")
        part = tree.get(section)
        if not isinstance(part, dict):
            continue
        path = part.get(name)
        if isinstance(path, str) and "://" not in path and Path(path).exists():
            part[name] = str(resolve_path(path))
    return yaml.safe_dump(tree, sort_keys=False)


def read_recipe_tree(recipe: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A recipe with all that it extends, unchecked: plain values, and dotted key -> "file:line".

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.

    Raises:
        ConfigError: Where a file is missing or is no recipe.
    """
    return _read_recipe(_find_recipe(recipe, Path.cwd()), ())


def split_override(item: str, origin: str = COMMAND_LINE) -> tuple[str, str]:
    """Key and text of an item `a.b=c`.

    Raises:
        ConfigError: Where it has another form; names `origin` as its source.
    """
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"{origin}: {item!r} is not of the form field=value")
    return key, text


def parse_overrides(overrides: Sequence[str], origin: str = COMMAND_LINE) -> dict[str, Any]:
    """Key -> value of items `a.b=c`, the value in YAML.

    Args:
        overrides: The items; a key's last one counts.
        origin: What errors name as their source.

    Raises:
        ConfigError: Where an item has another form, or its value is no YAML.
    """
    values: dict[str, Any] = {}
    for item in overrides:
        key, text = split_override(item, origin)
        try:
            values[key] = _parse_place(text) if key in PLACES else parse_value(text)
        except ValueError as error:
            raise ConfigError(f"{origin}: {key}: {error}") from error
    return values


def _parse_place(text: str) -> Any:
    """The value of a field that holds a path: as it is typed, unless it is quoted or null.

    In YAML ` #` would end it, and `%` could not begin it.
    """
    if text[:1] in ("", "'", '"', "!"):
        return parse_value(text)
    return None if text in ("null", "Null", "NULL", "~") else text


def override(
    resolved: Resolved, values: Mapping[str, object], origin: str | Mapping[str, str]
) -> Resolved:
    """Replace single values of a checked configuration.

    Args:
        resolved: The configuration to start from; it is left as it is.
        values: Dotted key -> value.
        origin: What errors and provenance name as their source; of each key where they differ.

    Returns:
        The checked result.

    Raises:
        ConfigError: As `load_experiment`.
    """
    tree = json.loads(resolved.config.model_dump_json())
    origins = dict(resolved.origins)
    for key, value in values.items():
        _set_value(tree, origins, key, value, origin if isinstance(origin, str) else origin[key])
    return dataclasses.replace(_validate(tree, origins), recipe=resolved.recipe)


def load_resolved(text: str) -> Resolved:
    """Read back a configuration written by `dump`."""
    return _validate(parse_value(text), {})


def dump(config: ExperimentConfig) -> str:
    """The whole tree as YAML; `load_resolved` reads it back to an equal one."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def config_digest(config: ExperimentConfig) -> str:
    """SHA-256 over every value but the data's path (the data's own digest stands for it).

    A field that came later counts where it is not at the value that changes nothing.
    """
    tree = json.loads(config.model_dump_json())
    del tree["data"]["path"]
    # It decides no result, and came after digests were first recorded.
    del tree["tracking"]["code_diff"]
    for key, unchanged in ADDED.items():
        *parents, last = key.split(".")
        section = functools.reduce(operator.getitem, parents, tree)
        if section[last] == unchanged:
            del section[last]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def flat(config: ExperimentConfig) -> dict[str, Any]:
    """Dotted key -> scalar, lists as JSON text, as MLflow's parameters show them."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            yield prefix, json.dumps(value) if isinstance(value, list) else value

    return dict(walk("", json.loads(config.model_dump_json())))


def _find_recipe(recipe: str, beside: Path) -> Path:
    for path in (RECIPES / f"{recipe}.yaml", Path(recipe), beside / recipe):
        if path.is_file():
            return path.resolve()
    near = nearest(recipe, recipe_names())
    raise ConfigError(
        f"recipe {recipe!r} is neither a shipped recipe nor a file{near}; "
        f"shipped: {', '.join(recipe_names())}"
    )


def _read_recipe(path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    if path in chain:
        names = " -> ".join(str(item) for item in (*chain, path))
        raise ConfigError(f"{path}: recipes extend each other in a circle: {names}")
    content, lines = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a recipe is a mapping, got {type(content).__name__}")
    parents = content.pop("extends", [])
    if not isinstance(parents, list) or not all(isinstance(item, str) for item in parents):
        where = lines.get("extends", str(path))
        raise ConfigError(f"{where}: extends must be a list of recipe names, got {parents!r}")
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for index, parent in enumerate(parents):
        try:
            parent_path = _find_recipe(parent, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{lines.get(f'extends.{index}', path)}: extends: {error}") from error
        parent_tree, parent_origins = _read_recipe(parent_path, (*chain, path))
        _merge(tree, parent_tree)
        origins.update(parent_origins)
    _merge(tree, content)
    file_origins = {key: at for key, at in lines.items() if not key.startswith("extends")}
    for name in [name for name in origins if _is_in_new_list(name, file_origins)]:
        del origins[name]
    origins.update(file_origins)
    return tree, origins


def _is_in_new_list(name: str, new: Mapping[str, str]) -> bool:
    """Whether a key is an item, or below one, of a list that a file replaces."""
    parts = name.split(".")
    return any(
        part.isdigit() and ".".join(parts[:depth]) in new for depth, part in enumerate(parts)
    )


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> None:
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _set_value(
    tree: dict[str, Any], origins: dict[str, str], key: str, value: object, origin: str
) -> None:
    *parents, last = key.split(".")
    node = tree
    for depth, name in enumerate(parents):
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            at = ".".join(parents[: depth + 1])
            raise ConfigError(f"{origin}: {key}: {at} is a value, it has no field below it")
        node = child
    node[last] = value
    for below in [name for name in origins if name.startswith(f"{key}.")]:
        del origins[below]
    origins[key] = origin


def _validate(tree: Any, origins: dict[str, str]) -> Resolved:
    config = validate_tree(ExperimentConfig, tree, origins, source=_SOURCE, several=_SEVERAL)
    for key, value in flat(config).items():
        if isinstance(value, str) and (_CREDENTIALS.search(unquote(value)) or TOKEN.search(value)):
            origin = find_origin(key.split("."), origins, _SOURCE)
            raise ConfigError(
                f"{origin}: {key}: an address must not hold a user, password or key, nor any value "
                "a token, since every run records its configuration; give them as the storage's "
                "own environment variables or files"
            )
    return Resolved(_with_absolute_paths(config, origins), origins)


def _with_absolute_paths(config: ExperimentConfig, origins: dict[str, str]) -> ExperimentConfig:
    for key in PLACES:
        section, name = key.split(".")
        part = getattr(config, section)
        path = getattr(part, name)
        if path is not None and "://" not in path:
            try:
                resolved = str(resolve_path(path))
            except ValueError as error:
                origin = find_origin([section, name], origins, _SOURCE)
                raise ConfigError(f"{origin}: {key}: {error}") from error
            part = part.model_copy(update={name: resolved})
            config = config.model_copy(update={section: part})
    return config


def takes_fractions(key: str) -> bool:
    """Whether a field is a number that need not be whole; False for a field that is not there.

    Args:
        key: Its dotted key.
    """
    *section, name = key.split(".")
    annotation = known_fields(ExperimentConfig, section).get(name)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return float in typing.get_args(annotation)
    return annotation is float
