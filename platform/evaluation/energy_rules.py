"""Named tables of picojoules per operation, shipped ones and files of a user."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from ...model.accounting.energy import EnergyRule
from ..config.errors import ConfigError
from ..config.recipes import nearest
from ..config.yaml_source import read_yaml

RULES = Path(__file__).parents[2] / "model" / "accounting" / "rules"
KINDS = (
    *("convolution", "linear", "attention", "mask_product", "product", "sampling", "modulation"),
    *("elementwise", "interpolation", "normalization", "scaling", "addition", "neuron"),
)
_FIELDS = {item.name: item for item in dataclasses.fields(EnergyRule) if item.name != "name"}
_NUMBERS = [name for name in _FIELDS if name not in ("source", "leave_out")]


def rule_names() -> list[str]:
    """Names of the shipped rules."""
    return sorted(path.stem for path in RULES.glob("*.yaml"))


def load_rules(word: str) -> list[EnergyRule]:
    """Load one rule, or all shipped ones.

    Args:
        word: Name of a shipped rule, `all`, or path of a YAML file with the fields of `EnergyRule`.

    Raises:
        ConfigError: Names file, line, key, value and rule.
    """
    names = rule_names()
    if word == "all":
        return [_read_rule(RULES / f"{name}.yaml") for name in names]
    if word in names:
        return [_read_rule(RULES / f"{word}.yaml")]
    path = Path(word)
    if path.suffix in (".yaml", ".yml"):
        return [_read_rule(path)]
    raise ConfigError(
        f"--rule: got {word!r}{nearest(word, names)}; there are {', '.join(names)}, all, and files "
        "that end in .yaml"
    )


def _read_rule(path: Path) -> EnergyRule:
    content, lines = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a table of picojoules, got {type(content).__name__}")
    for key in content:
        if key not in _FIELDS:
            raise ConfigError(
                f"{lines.get(key, path)}: {key}: is no field of a rule"
                f"{nearest(str(key), list(_FIELDS))}; there are {', '.join(_FIELDS)}"
            )
    missing = [
        name
        for name, item in _FIELDS.items()
        if item.default is dataclasses.MISSING and name not in content
    ]
    if missing:
        raise ConfigError(f"{path}: must give {', '.join(missing)}")
    values = {name: _check(name, value, lines.get(name, path)) for name, value in content.items()}
    return EnergyRule(name=path.stem, **values)


def _check(name: str, value: Any, where: object) -> Any:
    if name == "source":
        if isinstance(value, str) and value.strip():
            return value
        raise ConfigError(f"{where}: source: must say where the numbers come from, got {value!r}")
    if name == "leave_out":
        if isinstance(value, list) and set(map(str, value)) <= set(KINDS):
            return tuple(value)
        raise ConfigError(
            f"{where}: leave_out: must be a list of {', '.join(KINDS)}, got {value!r}"
        )
    assert name in _NUMBERS
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"{where}: {name}: must be picojoules, a finite number of at least 0, got {value!r}"
        )
    return float(value)
