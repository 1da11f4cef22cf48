"""What every field of a configuration means, takes and is by default, from the schema itself."""

import functools
import inspect
import json
import re
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from pydantic import BaseModel

from .field_kinds import describe_kind, fields_of, sections_of

_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")
_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


@dataclass(frozen=True)
class FieldDescription:
    """One field, in words.

    Attributes:
        key: Dotted key.
        kind: What it takes; `a section` where it holds other fields.
        rule: Its range; empty where the kind says all, or the meaning does.
        default: As YAML, `null` for none; None where a recipe must give it.
        meaning: From the schema's documentation.
        below: Keys of the fields that a section holds.
    """

    key: str
    kind: str
    rule: str
    default: str | None
    meaning: str
    below: tuple[str, ...] = ()


@functools.cache
def describe_fields(model: type, prefix: str = "") -> dict[str, FieldDescription]:
    """Dotted key -> description of every field of a tree, sections before what they hold.

    Args:
        model: The model of the tree.
        prefix: Set before every key.
    """
    described: dict[str, FieldDescription] = {}
    texts = read_attributes(model)
    for name, annotation in fields_of(model).items():
        key = f"{prefix}{name}"
        inner: dict[str, FieldDescription] = {}
        for section in sections_of(annotation):
            inner |= describe_fields(section, f"{key}.")
        meaning = texts.get(name, "")
        if inner and not meaning:
            meaning = " ".join(read_summary(section) for section in sections_of(annotation))
        described[key] = FieldDescription(
            key=key,
            kind=describe_kind(annotation),
            rule=_read_rule(model, name),
            default=_read_default(model, name),
            meaning=meaning,
            below=tuple(item for item in inner if "." not in item.removeprefix(f"{key}.")),
        )
        described |= inner
    return described


def read_summary(model: type) -> str:
    """The first sentence of a class's documentation."""
    return inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


@functools.cache
def read_attributes(model: type) -> dict[str, str]:
    """Name -> text of the `Attributes:` in a class's documentation."""
    texts: dict[str, str] = {}
    name = ""
    _, _, block = inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:\n")
    for line in block.splitlines():
        if line and not line.startswith(" "):
            break
        entry = _ENTRY.match(line)
        if entry:
            name = entry[1]
            texts[name] = entry[2]
        elif name and line.strip():
            texts[name] += f" {line.strip()}"
    return texts


def _read_rule(model: type, name: str) -> str:
    if not issubclass(model, BaseModel):
        return ""
    rules = []
    for item in model.model_fields[name].metadata:
        bounds = ((sign, getattr(item, bound, None)) for bound, sign in _BOUNDS)
        rules += [f"{sign} {value}" for sign, value in bounds if value is not None]
        if (least := getattr(item, "min_length", None)) is not None:
            rules.append(f"length >= {least}")
        if (most := getattr(item, "max_length", None)) is not None:
            rules.append(f"length <= {most}")
        if (pattern := getattr(item, "pattern", None)) is not None:
            rules.append(f"matches {pattern}")
    return ", ".join(rules)


def _read_default(model: type, name: str) -> str | None:
    if issubclass(model, BaseModel):
        info = model.model_fields[name]
        if info.is_required():
            return None
        default: Any = info.get_default(call_default_factory=True)
    elif is_dataclass(model):
        entry = next(item for item in fields(model) if item.name == name)
        factory: Any = entry.default_factory
        default = entry.default if factory is MISSING else factory()
    else:
        return None
    if default is MISSING:
        return None
    if fields_of(type(default)):
        return "its fields' defaults"
    return _as_yaml(default)


def _as_yaml(value: Any) -> str:
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value)
