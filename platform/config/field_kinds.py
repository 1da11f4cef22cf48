"""What kind of value a field takes, in words, and where a field of a given name stands."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    type(None): "null",
}
# Above, a float cannot tell a whole number from the next one.
_LARGEST_WHOLE = 2**53


def describe_kind(annotation: Any) -> str:
    """What a field takes: `a whole number`, `a list of 2 numbers`, `one of: a, b`, `a section`."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_kind(inner[0])
    if origin is typing.Literal:
        return f"one of: {', '.join(map(str, inner))}"
    if is_union(annotation):
        kinds = dict.fromkeys(describe_kind(item) for item in inner)
        return " or ".join(kinds)
    if origin is tuple and Ellipsis not in inner:
        kinds = {describe_kind(item) for item in inner}
        return f"a list of {len(inner)} {_pluralize(kinds.pop() if len(kinds) == 1 else 'a value')}"
    if origin in (list, tuple):
        return f"a list of {_pluralize(describe_kind(inner[0]))}"
    if origin is dict:
        return f"a mapping of names to {_pluralize(describe_kind(inner[1]))}"
    if fields_of(annotation):
        return "a section"
    return "a value"


def _pluralize(kind: str) -> str:
    if kind.startswith("a list"):
        return f"lists{kind.removeprefix('a list')}"
    return f"{kind.removeprefix('a ')}s" if kind.startswith("a ") else f"values, each {kind}"


def is_union(annotation: Any) -> bool:
    """Whether an annotation is of the form `X | Y`."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


@functools.cache
def fields_of(kind: Any) -> dict[str, Any]:
    """Name -> annotation of the fields of a pydantic model or a dataclass; empty for others."""
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, BaseModel):
        return {name: info.annotation for name, info in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {entry.name: hints[entry.name] for entry in dataclasses.fields(kind)}
    return {}


def sections_of(annotation: Any) -> Iterator[type]:
    """The models that a field itself may hold; not those in lists and mappings."""
    if fields_of(annotation):
        yield annotation
    elif is_union(annotation) or typing.get_origin(annotation) is typing.Annotated:
        for inner in typing.get_args(annotation):
            yield from sections_of(inner)


@functools.cache
def field_keys(model: type, prefix: str = "") -> tuple[str, ...]:
    """Dotted keys of all fields of a tree, sections before what they hold."""
    keys: dict[str, None] = {}
    for name, annotation in fields_of(model).items():
        keys[f"{prefix}{name}"] = None
        for section in sections_of(annotation):
            keys |= dict.fromkeys(field_keys(section, f"{prefix}{name}."))
    return tuple(keys)


SYMBOLS = {"T": "model.neuron.timesteps", "D": "model.neuron.levels"}
"""What papers and tables call a field -> its key."""


def find_keys(model: type, name: str) -> list[str]:
    """Dotted keys that end with a name: `lr` is `optimizer.lr`; the name's own key alone if whole.

    Args:
        model: The model of the whole tree.
        name: A field's name, or the end of its key.
    """
    keys = field_keys(model)
    name = SYMBOLS.get(name, name)
    if name in keys:
        return [name]
    return [key for key in keys if key.endswith(f".{name}")]


def nearest_keys(model: type, name: str) -> list[str]:
    """Dotted keys whose last part, or the whole, is nearest to a misspelt name; at most three."""
    keys = field_keys(model)
    if "." in name:
        return difflib.get_close_matches(name, keys, n=3, cutoff=0.7)
    leaves = sorted({key.rpartition(".")[2] for key in keys})
    close = difflib.get_close_matches(name, leaves, n=1, cutoff=0.7)
    return [key for key in keys if close and key.rpartition(".")[2] == close[0]][:3]


def read_whole_numbers(annotation: Any, value: Any) -> Any:
    """Turn a whole float, such as `1e4`, into an integer wherever a field takes no fractions.

    Args:
        annotation: Type of the value.
        value: Plain values, as YAML gives them; it is left as it is.

    Returns:
        The value, with integers in place of whole floats.
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return read_whole_numbers(inner[0], value)
    if isinstance(value, float):
        kinds = inner if is_union(annotation) else (annotation,)
        wanted = int in kinds and float not in kinds
        whole = value.is_integer() and abs(value) <= _LARGEST_WHOLE
        return int(value) if wanted and whole else value
    if isinstance(value, list):
        return _read_list(annotation, value)
    if isinstance(value, dict):
        return _read_mapping(annotation, value)
    return value


def _read_list(annotation: Any, values: Sequence[Any]) -> list[Any]:
    for kind in typing.get_args(annotation) if is_union(annotation) else (annotation,):
        inner = typing.get_args(kind)
        if typing.get_origin(kind) is list or (inner and inner[-1] is Ellipsis):
            return [read_whole_numbers(inner[0], value) for value in values]
        if typing.get_origin(kind) is tuple and len(inner) == len(values):
            return [read_whole_numbers(*pair) for pair in zip(inner, values, strict=True)]
    return list(values)


def _read_mapping(annotation: Any, values: dict[Any, Any]) -> dict[Any, Any]:
    sections = list(sections_of(annotation))
    if len(sections) == 1:
        fields = fields_of(sections[0])
        return {
            key: read_whole_numbers(fields[key], value) if key in fields else value
            for key, value in values.items()
        }
    if typing.get_origin(annotation) is dict:
        kind = typing.get_args(annotation)[1]
        return {key: read_whole_numbers(kind, value) for key, value in values.items()}
    return values
