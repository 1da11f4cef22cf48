"""YAML with the line of every key, and numbers read as people write them."""

import re
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError

_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
# A tag that does not fit its value (`!!int a`), and nesting without end.
_UNREADABLE = (yaml.YAMLError, ValueError, KeyError, RecursionError)


class SourceLoader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, on/off/yes/no and 2020-01-01 are words.

    Args:
        stream: The text.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        # In depth, a list or mapping that holds itself is found and refused.
        self.deep_construct = True

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is no scalar, or given twice, where plain YAML takes the last one."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word, got a list or mapping", key.start_mark
                )
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice (line {line})", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


SourceLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rpartition(":")[2] not in ("bool", "float", "timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Sets, bytes, dates and ordered mappings are no part of any configuration, nor of JSON.
SourceLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _TAGS
}
SourceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tTfF")
)
SourceLoader.add_implicit_resolver(
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
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text in UTF-8 ({error.reason})") from error
    try:
        node = yaml.compose(text, Loader=SourceLoader)
        content = yaml.load(text, Loader=SourceLoader)
    except _UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        at = path if mark is None else f"{path}:{mark.line + 1}"
        raise ConfigError(f"{at}: not valid YAML: {' '.join(str(error).split())}") from error
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


def parse_value(text: str) -> Any:
    """The value of one override, in YAML.

    Raises:
        ValueError: Where it is not YAML.
    """
    try:
        return yaml.load(text, Loader=SourceLoader)
    except _UNREADABLE as error:
        raise ValueError(f"{text!r} is not valid YAML") from error
