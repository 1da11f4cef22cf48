"""YAML 1.2 with the line of every key; only what JSON can hold."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver

from .errors import ConfigError

# A text of some hundred bytes can name a list of lists a billion times.
_MOST_VALUES = 100_000
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
# A tag that does not fit its value (`!!int a`), and nesting without end.
_UNREADABLE = (YAMLError, ValueError, KeyError, RecursionError)


class _Resolver(VersionedResolver):
    """YAML 1.2's, but for dates, which are words."""

    def add_version_implicit_resolver(
        self, version: Any, tag: Any, regexp: Any, first: Any
    ) -> None:
        """Learn the form of a type."""
        if str(tag).rpartition(":")[2] in (*_TAGS, "merge"):
            super().add_version_implicit_resolver(version, tag, regexp, first)


class _Constructor(SafeConstructor):
    """Words, finite numbers, lists, and mappings with words as keys."""

    # Sets, bytes, dates and ordered mappings are no part of any configuration.
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in SafeConstructor.yaml_constructors.items()
        if tag is None or str(tag).rpartition(":")[2] in _TAGS
    }

    def construct_yaml_float(self, node: Any) -> Any:
        """Read a number; `.nan` and `.inf` stay words, which no field takes."""
        value = super().construct_yaml_float(node)
        return value if math.isfinite(value) else node.value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a key that is a list or mapping."""
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ConstructorError(
                    None, None, "a key must be a word, got a list or mapping", key.start_mark
                )
        return super().construct_mapping(node, deep)


_Constructor.add_constructor("tag:yaml.org,2002:float", _Constructor.construct_yaml_float)


def _compose(text: str) -> tuple[YAML, Node | None]:
    """A reader, and a text's tree of nodes, which know their lines; None of an empty text."""
    reader = YAML(typ="safe", pure=True)
    reader.Resolver, reader.Constructor = _Resolver, _Constructor
    node = reader.compose(text)
    if node is not None and len(list(islice(_expand(node, ()), _MOST_VALUES + 1))) > _MOST_VALUES:
        raise ConstructorError(
            None, None, f"more than {_MOST_VALUES} values, aliases expanded", node.start_mark
        )
    return reader, node


def _construct(reader: YAML, node: Node | None) -> Any:
    """The content of a tree; merges what `<<` names into the tree itself."""
    return None if node is None else reader.constructor.construct_document(node)


def _expand(node: Node, above: tuple[Node, ...]) -> Iterator[Node]:
    """All nodes below one, as often as aliases name them."""
    if any(node is other for other in above):
        raise ConstructorError(
            None, None, "a list or mapping must not hold itself", node.start_mark
        )
    yield node
    parts = node.value if isinstance(node, MappingNode | SequenceNode) else ()
    for part in parts:
        for child in part if isinstance(part, tuple) else (part,):
            yield from _expand(child, (*above, node))


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
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text in UTF-8 ({error.reason})") from error
    lines: dict[str, str] = {}
    try:
        reader, node = _compose(text)
        if node is not None:
            _collect_lines(node, (), path, lines)
        content = _construct(reader, node)
    except _UNREADABLE as error:
        raise ConfigError(_describe(error, path)) from error
    return content, lines


def _describe(error: Exception, path: Path) -> str:
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f"{path}: not valid YAML: {error}"
    what = f"{error.context}: {error.problem}" if error.context else f"{error.problem}"
    return f"{path}:{error.problem_mark.line + 1}: not valid YAML: {what}"


def _collect_lines(node: Node, prefix: tuple[str, ...], path: Path, lines: dict[str, str]) -> None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            name = (*prefix, str(key.value))
            lines[".".join(name)] = f"{path}:{key.start_mark.line + 1}"
            _collect_lines(value, name, path, lines)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            name = (*prefix, str(index))
            lines[".".join(name)] = f"{path}:{value.start_mark.line + 1}"
            _collect_lines(value, name, path, lines)


def parse_value(text: str) -> Any:
    """The value of one override, in YAML.

    Raises:
        ValueError: Where it is not YAML.
    """
    try:
        return _construct(*_compose(text))
    except _UNREADABLE as error:
        raise ValueError(f"{text!r} is not valid YAML") from error


def yaml_word(value: Any) -> str:
    """A value as text that `parse_value` reads back: a plain word, or JSON."""
    try:
        plain = isinstance(value, str) and value and parse_value(value) == value
    except ValueError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)
