"""Errors of configurations: what was given where, the rule that it breaks, the nearest name."""

import difflib
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .field_kinds import describe_kind, fields_of, find_keys, nearest_keys, read_whole_numbers

COMMAND_LINE = "command line"
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
# A longer list of names is no help.
_MOST_NAMES = 12

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(ValueError):
    """A request that cannot be run, found before work started (exit code 2)."""


def validate_tree(
    model: type[Model],
    tree: Any,
    origins: Mapping[str, str],
    *,
    source: str,
    several: str = "",
    prefix: str = "",
) -> Model:
    """Check a tree of plain values against a pydantic model; `1e4` is a whole number, too.

    Args:
        model: The model.
        tree: Mappings, lists and scalars, as YAML gives them.
        origins: Dotted key -> "file:line" or "command line".
        source: What errors name where `origins` knows neither a key nor what stands around it.
        several: What to say of several values where a field takes one; `{key}` is
            the field, `{values}` are the values.
        prefix: What stands before a key on the command line.

    Raises:
        ConfigError: One sentence a fault: origin, key, value, rule, nearest name.
    """
    tree = read_whole_numbers(model, tree)
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        faults = [_Fault(model, item, tree, several) for item in error.errors()]
        sentences = [fault.sentence(origins, source, prefix) for fault in faults]
        raise ConfigError("\n".join(sentences)) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a value cannot be written as JSON: {error}") from error


def find_origin(key: Sequence[str], origins: Mapping[str, str], source: str) -> str:
    """Where a key was given, or its nearest parent, or a key below it.

    Args:
        key: The parts of a dotted key.
        origins: Dotted key -> "file:line" or "command line".
        source: The answer where nothing is known.
    """
    name = ".".join(key)
    below = [origin for other, origin in origins.items() if other.startswith(f"{name}.")]
    if name not in origins and COMMAND_LINE in below:
        return COMMAND_LINE
    for length in range(len(key), 0, -1):
        origin = origins.get(".".join(key[:length]))
        if origin is not None:
            return origin
    return below[0] if below else source


def nearest(name: str, candidates: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: what may have been meant; empty where nothing.

    Args:
        name: What was given.
        candidates: What is known.
    """
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def nearest_or_all(name: str, candidates: Sequence[str]) -> str:
    """As `nearest`; all candidates where none is near and they are few."""
    near = nearest(name, candidates)
    if near or not 0 < len(candidates) <= _MOST_NAMES:
        return near
    return f"; known here: {', '.join(candidates)}"


def known_fields(model: type, location: Sequence[str | int]) -> dict[str, Any]:
    """Name -> type annotation of the fields below a place; of all models where it is a union.

    Args:
        model: The model of the whole tree.
        location: Parts of the place's key; what leads to no model (an index, a mapping's key, the
            tag of a union) is passed over.
    """
    sections = [model]
    for part in location:
        below = [fields[part] for fields in map(fields_of, sections) if part in fields]
        sections = [item for kind in below for item in _sections(kind)] or sections
    return {name: kind for section in sections for name, kind in fields_of(section).items()}


def _sections(annotation: Any) -> Iterator[type]:
    """The models and dataclasses in an annotation such as `X | None`, `list[X]`, `dict[str, X]`."""
    if fields_of(annotation):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _sections(inner)


_KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a word",
}
_SHAPES = ("list_type", "tuple_type", "too_short", "too_long", "dict_type")
_SECTIONS = ("model_type", "model_attributes_type", "dataclass_type")


def _rule_in_words(kind: str, message: str, annotation: Any) -> str:
    """A rule of pydantic's in the words of this package.

    Args:
        kind: Type of its error.
        message: Its sentence.
        annotation: Of the field that it is about; None where that is not known.
    """
    if kind in _KINDS:
        return _KINDS[kind]
    if kind in _SHAPES and annotation is not None:
        least = re.search(r"at least (\d+) item", message)
        wanted = describe_kind(annotation)
        return f"must be {wanted}" + (f", at least {least[1]}" if least else "")
    if kind in _SECTIONS:
        names = list(dict.fromkeys(n for s in _sections(annotation) for n in fields_of(s)))
        shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        return f"must be a section with fields{f': {shown}' if shown else ''}"
    message = re.sub(r"^Input should be ", "must be ", message.removeprefix("Value error, "))
    return re.sub(r"^(?:String|Value|List|Tuple|Dictionary) should ", "must ", message)


class _Fault:
    """One of pydantic's errors, about a key of the tree as the user wrote it."""

    def __init__(self, model: type, item: Any, tree: Any, several: str) -> None:
        self._type = item["type"]
        location = _location_in_words(item["loc"], self._type, tree)
        if location != item["loc"]:
            self._type = "too_short"
        missing = self._type in _MISSING
        self._annotation = known_fields(model, location[:-1]).get(
            str(location[-1:] and location[-1])
        )
        self._rule = _rule_in_words(self._type, item["msg"], self._annotation)
        self._model = model
        self._several = several
        key = _key_in_tree(location, tree, missing=missing)
        if key is None:
            key = _key_in_tree(location[:-1], tree, missing=missing)
        self._key = key or []
        self._names = list(known_fields(model, location[:-1]))
        # A rule of a whole section begins with what it is about: `field must ...`, `field: ...`.
        self._about: list[str] = []
        first = self._rule.partition(" ")[0]
        if self._type == "value_error" and first.endswith(":"):
            self._about = ".".join(self._rule.split(": ")[:-1]).split(".")
        elif self._type == "value_error":
            about = first.split(".")
            if about[0] in known_fields(model, location) and self._key[-1:] != about:
                self._key += about
        self._tree = tree

    def sentence(self, origins: Mapping[str, str], source: str, prefix: str) -> str:
        """Origin, key, value and rule."""
        where = find_origin([*self._key, *self._about], origins, source)
        begin = prefix if where == COMMAND_LINE else ""
        at = ": ".join([where, *([begin + ".".join(self._key)] if self._key else [])])
        if self._type in _UNKNOWN:
            if self._key[-1] in self._names:
                return f"{at}: no field of the kind that is given here"
            return f"{at}: no such field{self._suggest()}"
        if self._type in _MISSING:
            return f"{at}: required, and not given"
        value = _value(self._tree, self._key)
        section = self._type == "value_error" and isinstance(value, dict)
        if self._about or section or value is _ABSENT:
            return f"{at}: {self._rule}"
        return f"{at}: got {value!r}: {self._rule}{self._advise(self._key, value)}"

    def _suggest(self) -> str:
        """The end of a sentence about an unknown field: where it stands, or what is near."""
        name = self._key[-1]
        keys = find_keys(self._model, name)
        if not keys and not nearest(name, self._names):
            keys = nearest_keys(self._model, name)
        if not keys:
            return nearest_or_all(name, self._names)
        value = _value(self._tree, self._key)
        return f", did you mean {' or '.join(map(repr, keys))}?{self._advise(keys, value)[1:]}"

    def _advise(self, key: Sequence[str], value: Any) -> str:
        """What to do with several values where a field takes one; empty where there is one."""
        items = value.split(",") if isinstance(value, str) else value
        scalar = not isinstance(items, list) or len(items) < 2
        if scalar or not self._several or self._type in (*_SHAPES, *_SECTIONS):
            return ""
        name = key[0] if "." in key[0] else ".".join(key)
        *parents, last = name.split(".")
        field = known_fields(self._model, parents).get(last)
        if field is not None and "a list" in describe_kind(field):
            return ""
        text = self._several.replace("{key}", name)
        return "; " + text.replace("{values}", ", ".join(str(item).strip() for item in items))


def _location_in_words(
    location: tuple[str | int, ...], kind: str, tree: Any
) -> tuple[str | int, ...]:
    """A location; of an entry that a list lacks, the list's."""
    parent = location[:-1]
    if kind in _MISSING and location and isinstance(location[-1], int):
        key = _key_in_tree(parent, tree, missing=False)
        if key and isinstance(_value(tree, key), list):
            return parent
    return location


_ABSENT = object()


def _step(node: Any, part: str | int) -> Any:
    """What stands below a part of a key; `_ABSENT` where nothing does."""
    if isinstance(node, dict):
        return node.get(part, _ABSENT)
    if isinstance(node, list) and str(part).isdigit() and int(part) < len(node):
        return node[int(part)]
    return _ABSENT


def _value(tree: Any, key: Sequence[str]) -> Any:
    for part in key:
        tree = _step(tree, part)
    return tree


def _key_in_tree(location: Sequence[str | int], tree: Any, *, missing: bool) -> list[str] | None:
    """A location without what pydantic adds to it: tags of unions, names of wrapping models.

    Returns:
        None where the location's last part is not in the tree, unless it is `missing` from there.
    """
    if not location:
        return []
    part, *rest = location
    below = _step(tree, part)
    if below is not _ABSENT or (missing and not rest):
        key = _key_in_tree(rest, below, missing=missing)
        if key is not None:
            return [str(part), *key]
    return _key_in_tree(rest, tree, missing=missing) if rest else None
