"""The whole experiment in one typed tree: recipes, overrides, and errors that name file and line."""

import dataclasses
import difflib
import hashlib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..datasets.transforms import TransformConfig
from ..model.config import LossConfig, ModelConfig

RECIPES = Path(__file__).resolve().parents[1] / "jobs" / "recipes"


class ConfigError(ValueError):
    """A request that cannot be run, found before work started (exit code 2)."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataConfig(_Section):
    """Which packed data set is read, and how.

    Attributes:
        path: Folder of a packed data set (`spikeseg data pack`).
        transform: Augmentation in training, resizing in evaluation.
        shuffle_window: Rows among which the order is shuffled; at least 1.
        prefetch: Micro-batches decoded ahead by a thread beside training; 0 decodes in place.
        evaluation_batch: Images in one forward pass of an evaluation.
    """

    path: str
    transform: TransformConfig
    shuffle_window: int = Field(default=4096, ge=1)
    prefetch: int = Field(default=2, ge=0)
    evaluation_batch: int = Field(default=8, ge=1)


class ParameterRule(_Section):
    """Factors for the parameters whose name matches a shell-style pattern; the first match counts.

    Attributes:
        match: Pattern such as `backbone.*`.
        lr: Factor on the learning rate.
        weight_decay: Factor on the weight decay.
    """

    match: str
    lr: float = Field(default=1.0, ge=0)
    weight_decay: float = Field(default=1.0, ge=0)


class OptimizerConfig(_Section):
    """AdamW, linear warm-up, polynomial decay, clipping by the global norm.

    Attributes:
        lr: Base learning rate.
        weight_decay: Decoupled weight decay, also on norms and biases (as published).
        betas: AdamW's averaging coefficients.
        clip_norm: Largest global gradient norm; None does not clip.
        warmup_steps: Steps of linear warm-up from `warmup_start` x lr.
        warmup_start: First factor of the warm-up.
        power: Power of the polynomial decay.
        decay_steps: Step at which the rate reaches 0; None takes trainer.max_steps.
        rules: Per-parameter factors, first match wins.
    """

    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start: float = Field(default=1e-6, ge=0, le=1)
    power: float = Field(default=1.0, ge=0)
    decay_steps: int | None = Field(default=None, ge=1)
    rules: list[ParameterRule] = []


class TrainerConfig(_Section):
    """How long, how often, how many, on what.

    Attributes:
        max_steps: Optimizer steps of the whole training.
        micro_batch_size: Images of one forward pass; BatchNorm sees these.
        micro_batches: Micro-batches of one optimizer step; at least the number of workers.
        workers: 0 trains in this process, n are Ray Train workers.
        evaluate_every: Steps between evaluations (and checkpoints); the last step always has one.
        log_every: Steps between two progress lines and training metrics.
        keep_checkpoints: Newest checkpoints kept besides the best.
        precision: Type of activations; `bf16` runs under autocast.
        device: `auto` takes the GPU that torch sees, else the CPU.
        threads: torch threads of one worker, set and not inherited.
        ema_decay: Decay of the averaged weights that are evaluated; None for none.
        reduction: `flat` sums gradients over workers in one all-reduce; `strict` sums them in the
            order of their micro-batches and is byte-equal for any number of workers.
        max_failures: Worker deaths survived before a run is given up.
        energy_images: Validation images on which energy and firing rates are measured.
        test: Whether the best checkpoint is scored on the test split at the end.
    """

    max_steps: int = Field(ge=1)
    micro_batch_size: int = Field(ge=1)
    micro_batches: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    evaluate_every: int = Field(ge=1)
    log_every: int = Field(default=20, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    reduction: Literal["flat", "strict"] = "flat"
    max_failures: int = Field(default=3, ge=0)
    energy_images: int = Field(default=8, ge=1)
    test: bool = True

    @model_validator(mode="after")
    def _workers_have_work(self) -> "TrainerConfig":
        if self.workers > self.micro_batches:
            raise ValueError(
                f"workers must not exceed micro_batches ({self.micro_batches}), since micro-batches "
                f"are handed out whole, got {self.workers}"
            )
        return self


class TrackingConfig(_Section):
    """What MLflow is told.

    Attributes:
        experiment: MLflow experiment of the run.
        images: Validation rows on the contact sheet, the same at every evaluation.
    """

    experiment: str = Field(default="spikeseg", min_length=1)
    images: int = Field(default=4, ge=0)


class ExperimentConfig(_Section):
    """One experiment; saved with its run, it alone rebuilds it.

    Attributes:
        name: Name of the recipe, first part of the run's name.
        seed: Seed of initial weights, order and augmentation.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(ge=0, lt=2**63)
    data: DataConfig
    model: ModelConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    tracking: TrackingConfig = TrackingConfig()


@dataclass(frozen=True)
class Resolved:
    """A checked configuration and where each of its values came from.

    Attributes:
        config: The configuration.
        origins: Dotted key to "file:line", "command line", "sweep"; keys left out are defaults.
    """

    config: ExperimentConfig
    origins: dict[str, str]


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, on/off/yes/no are words."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice (line {line})", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> tuple[Any, dict[str, str]]:
    """Read a YAML file with the line of every key.

    Args:
        path: The file.

    Returns:
        The content, and dotted key -> "file:line".

    Raises:
        ConfigError: Where the file is missing or is not YAML; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    lines: dict[str, str] = {}
    if node is not None:
        _collect_lines(node, (), path, lines)
    return content, lines


def _collect_lines(
    node: yaml.Node, prefix: tuple[str, ...], path: Path, lines: dict[str, str]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = (*prefix, str(key.value))
            lines[".".join(name)] = f"{path}:{key.start_mark.line + 1}"
            _collect_lines(value, name, path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            name = (*prefix, str(index))
            lines[".".join(name)] = f"{path}:{value.start_mark.line + 1}"
            _collect_lines(value, name, path, lines)


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_experiment(recipe: str, overrides: Sequence[str] = ()) -> Resolved:
    """Read a recipe with everything it extends, apply overrides, check the whole.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.
        overrides: Items `a.b=c`, the value in YAML.

    Returns:
        The checked configuration with the origin of its values; `data.path` is absolute.

    Raises:
        ConfigError: Names file and line (or "command line"), key, value, rule, nearest name.
    """
    tree, origins = _read_recipe(_find_recipe(recipe, Path.cwd()), ())
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator or not key:
            raise ConfigError(f"command line: {item!r} is not of the form field=value")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"command line: {key}: {text!r} is not valid YAML") from error
        _set(tree, origins, key, value, "command line")
    return _check(tree, origins)


def override(resolved: Resolved, values: Mapping[str, object], origin: str) -> Resolved:
    """Replace single values of a checked configuration.

    Args:
        resolved: The configuration to start from; it is left as it is.
        values: Dotted key -> value.
        origin: What errors and provenance name as their source.

    Returns:
        The checked result.

    Raises:
        ConfigError: As `load_experiment`.
    """
    tree = json.loads(resolved.config.model_dump_json())
    origins = dict(resolved.origins)
    for key, value in values.items():
        _set(tree, origins, key, value, origin)
    return _check(tree, origins)


def load_resolved(text: str) -> Resolved:
    """Read back a configuration written by `dump`."""
    return _check(yaml.load(text, Loader=_Loader), {})


def dump(config: ExperimentConfig) -> str:
    """The whole tree as YAML; `load_resolved` reads it back to an equal one."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False)


def config_digest(config: ExperimentConfig) -> str:
    """SHA-256 over every value but the data's path (the data's own digest stands for it)."""
    tree = json.loads(config.model_dump_json())
    del tree["data"]["path"]
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
    if recipe in recipe_names():
        return RECIPES / f"{recipe}.yaml"
    for path in (Path(recipe), beside / recipe):
        if path.is_file():
            return path.resolve()
    near = _nearest(recipe, recipe_names())
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
    for parent in parents:
        parent_tree, parent_origins = _read_recipe(
            _find_recipe(parent, path.parent), (*chain, path)
        )
        _merge(tree, parent_tree)
        origins.update(parent_origins)
    _merge(tree, content)
    origins.update({key: at for key, at in lines.items() if not key.startswith("extends")})
    return tree, origins


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> None:
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _set(
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
    origins[key] = origin


def _check(tree: Any, origins: dict[str, str]) -> Resolved:
    try:
        config = ExperimentConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error, tree, origins))) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a value cannot be written as JSON: {error}") from error
    if "://" not in config.data.path:
        data = config.data.model_copy(update={"path": str(Path(config.data.path).absolute())})
        config = config.model_copy(update={"data": data})
    return Resolved(config, origins)


def _sentences(error: ValidationError, tree: Any, origins: dict[str, str]) -> Iterator[str]:
    for item in error.errors():
        location = [str(part) for part in item["loc"]]
        key = ".".join(location)
        where = _origin(location, origins)
        rule = item["msg"].removeprefix("Value error, ")
        kind = item["type"]
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            near = _nearest(location[-1], field_names(location[:-1]))
            yield f"{where}: {key}: no such field{near}"
        elif kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
            yield f"{where}: {key}: required, and not given"
        else:
            yield f"{where}: {key}: got {_value(tree, location)!r}: {rule}"


def _origin(location: list[str], origins: dict[str, str]) -> str:
    """Where the key was given, or its nearest parent, or a key below it (a rule over several)."""
    key = ".".join(location)
    below = [at for name, at in origins.items() if name.startswith(f"{key}.")]
    if key not in origins and "command line" in below:
        return "command line"
    for length in range(len(location), 0, -1):
        at = origins.get(".".join(location[:length]))
        if at is not None:
            return at
    return below[0] if below else "configuration"


def _value(tree: Any, location: list[str]) -> Any:
    node = tree
    for part in location:
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return node
    return node


def field_names(location: Sequence[str]) -> list[str]:
    """Names of the fields below a place in the tree; empty where there are none."""
    kind: Any = ExperimentConfig
    for part in location:
        kind = _unwrap(_annotations(kind).get(part)) if not part.isdigit() else kind
    return list(_annotations(kind))


def _annotations(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {entry.name: hints[entry.name] for entry in dataclasses.fields(kind)}
    return {}


def _unwrap(annotation: Any) -> Any:
    """The class inside `X | None` or `list[X]`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list):
        inner = [item for item in typing.get_args(annotation) if item is not type(None)]
        return inner[0] if inner else None
    return annotation


def _nearest(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if close:
        return f", did you mean {close[0]!r}?"
    return f"; known here: {', '.join(candidates)}" if 0 < len(candidates) <= 12 else ""
