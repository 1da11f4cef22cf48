"""`classes.yaml`: the classes of a user's data, and which numbers, colours or words mean them."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ...spec import DataError
from .class_table import By, ClassDefinition, ClassTable, choose_palette
from .decode import format_colour

CLASS_FILE = "classes.yaml"
DRAFT = "classes.proposed.yaml"
_MOST_CLASSES = 255
_MOST_BYTES = 1 << 20
_FILE_KEYS = ("name", "classes", "ignore", "background", "tolerance", "unknown")
_CLASS_KEYS = ("name", "value", "colour", "label", "palette")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def read_class_file(text: bytes, where: Path) -> ClassTable:
    """Read a class file.

    Args:
        text: Its bytes, YAML 1.2.
        where: Named in errors.

    Raises:
        DataError: Names file, class, key and rule.
    """
    content = _parse(text, where)
    for key in content:
        _require_known(key, _FILE_KEYS, str(where))
    items = content.get("classes")
    if not isinstance(items, list) or not items or not all(isinstance(i, dict) for i in items):
        raise DataError(f"{where}: classes must be a list of mappings with a name each")
    if len(items) > _MOST_CLASSES:
        raise DataError(f"{where}: {len(items)} classes, at most {_MOST_CLASSES} can be stored")
    by = _find_kind(items, where)
    classes = tuple(_read_class(item, by, index, where) for index, item in enumerate(items))
    listed = content.get("ignore", [])
    ignore = listed if isinstance(listed, list) else [listed]
    if by == "label":
        codes, words = (), tuple(_read_word(item, f"{where}: ignore") for item in ignore)
    else:
        codes, words = tuple(_read_code(item, by, f"{where}: ignore") for item in ignore), ()
    table = ClassTable(
        name=_read_word(content.get("name", "classes"), f"{where}: name"),
        by=by,
        classes=classes,
        ignore=codes,
        ignored_labels=words,
        background=content.get("background"),
        tolerance=content.get("tolerance", 0),
        unknown=content.get("unknown", "refuse"),
    )
    _check_table(table, where)
    return table


def write_class_file(table: ClassTable, comments: Sequence[str] = ()) -> str:
    """A class table as text of a class file.

    Args:
        table: The classes.
        comments: A remark for each class; empty for none.
    """
    lines = ["# Rename classes, join two in one line (value: [1, 2]), or move a value to ignore."]
    lines += [f"name: {json.dumps(table.name, ensure_ascii=False)}", "classes:"]
    for index, item in enumerate(table.classes):
        parts = [f"name: {json.dumps(item.name, ensure_ascii=False)}"]
        if table.by == "label":
            parts.append(f"label: {_write_list(item.labels)}")
        else:
            key = table.by
            parts.append(f"{key}: {_write_list([_write_code(c, table.by) for c in item.codes])}")
        drawn = "#{:02x}{:02x}{:02x}".format(*item.palette)
        if [drawn] != [_write_code(code, table.by) for code in item.codes]:
            parts.append(f'palette: "{drawn}"')
        remark = f"  # {comments[index]}" if comments else ""
        lines.append(f"- {{{', '.join(parts)}}}{remark}")
    ignored = [_write_code(code, table.by) for code in table.ignore] + list(table.ignored_labels)
    lines.append(f"ignore: {json.dumps(ignored, ensure_ascii=False)}")
    if table.background is not None:
        lines.append(f"background: {json.dumps(table.background, ensure_ascii=False)}")
    if table.tolerance:
        lines.append(f"tolerance: {table.tolerance}")
    if table.ignores_unknown:
        lines.append("unknown: ignore")
    return "\n".join(lines) + "\n"


def _parse(text: bytes, where: Path) -> dict[str, Any]:
    if len(text) > _MOST_BYTES:
        raise DataError(f"{where}: {len(text)} bytes, a class file has at most {_MOST_BYTES}")
    if b"&" in text and re.search(rb"(?m)[:\-\[,]\s*[&*][A-Za-z0-9_]", text):
        raise DataError(f"{where}: anchors and aliases (&, *) have no use in a class file")
    try:
        content = YAML(typ="safe", pure=True).load(text.decode("utf-8-sig"))
    except (YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: not readable YAML ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: must be a mapping with the key classes")
    return content


def _find_kind(items: Sequence[Mapping[str, Any]], where: Path) -> By:
    kinds: list[By] = [
        kind for kind in ("value", "colour", "label") if any(kind in i for i in items)
    ]
    if not kinds:
        return "label"
    if len(kinds) > 1:
        raise DataError(
            f"{where}: classes have {' and '.join(kinds)}: all of them need the same one of value, "
            "colour and label"
        )
    for index, item in enumerate(items):
        if kinds[0] not in item and kinds[0] != "label":
            raise DataError(f"{where}: classes[{index}] has no {kinds[0]}, as the others have")
    return kinds[0]


def _read_class(item: Mapping[str, Any], by: By, index: int, where: Path) -> ClassDefinition:
    at = f"{where}: classes[{index}]"
    for key in item:
        _require_known(key, _CLASS_KEYS, at)
    if "name" not in item:
        raise DataError(f"{at} has no name")
    name = _read_word(item["name"], f"{at}: name")
    codes: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    if by == "label":
        words = item.get("label", name)
        labels = tuple(
            _read_word(word, f"{at}: label")
            for word in (words if isinstance(words, list) else [words])
        )
    else:
        stated = item[by]
        # A list of three numbers is one colour; a list of colours is several.
        several = isinstance(stated, list) and not (
            by == "colour" and stated and all(isinstance(part, int) for part in stated)
        )
        if stated == []:
            raise DataError(f"{at}: {by} must not be empty")
        parts = stated if several else [stated]
        codes = tuple(_read_code(part, by, f"{at}: {by}") for part in parts)
    palette = choose_palette(index)
    if "palette" in item:
        palette = _split_colour(_read_code(item["palette"], "colour", f"{at}: palette"))
    elif by == "colour":
        palette = _split_colour(next(iter(codes)))
    return ClassDefinition(name, codes, labels, palette)


def _check_table(table: ClassTable, where: Path) -> None:
    names = [item.name for item in table.classes]
    words: list[Any] = [word for item in table.classes for word in item.labels]
    words += table.ignored_labels
    codes = [code for item in table.classes for code in item.codes] + list(table.ignore)
    checked: Sequence[tuple[str, list[Any]]] = (
        ("name", names),
        ("label", words),
        (table.by, codes),
    )
    for what, values in checked:
        repeated = [value for value, count in Counter(values).items() if count > 1]
        if repeated:
            shown = [table.format_code(v) if isinstance(v, int) else v for v in repeated]
            raise DataError(f"{where}: {what} {shown[0]} is given twice")
    if table.background is not None and table.background not in names:
        raise DataError(f"{where}: background is {table.background!r}, which is no class's name")
    if table.background is not None and table.by != "label":
        raise DataError(
            f"{where}: background is for annotation files; masks say it by a {table.by}"
        )
    if table.unknown not in ("refuse", "ignore") or (table.by == "label" and table.ignores_unknown):
        raise DataError(
            f"{where}: unknown must be refuse or, with value or colour, ignore, got "
            f"{table.unknown!r}"
        )
    tolerance: Any = table.tolerance
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or not 0 <= tolerance <= 64:
        raise DataError(
            f"{where}: tolerance must be a whole number from 0 to 64, got {tolerance!r}"
        )


def _read_code(item: Any, by: By, at: str) -> int:
    if by == "colour":
        if isinstance(item, str) and _COLOUR.fullmatch(item):
            return int(item[1:], 16)
        parts = item if isinstance(item, list) else []
        if len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts):
            return (parts[0] << 16) | (parts[1] << 8) | parts[2]
        raise DataError(f'{at}: a colour is "#rrggbb" or [r, g, b] with 0..255, got {item!r}')
    if type(item) is not int or not -(1 << 24) < item < 1 << 24:
        raise DataError(f"{at}: a value is a whole number, got {item!r}")
    return item


def _read_word(item: Any, at: str) -> str:
    if not isinstance(item, str) or not item.strip():
        raise DataError(f"{at} must be text, got {item!r}")
    return item


def _split_colour(code: int) -> tuple[int, int, int]:
    return code >> 16, (code >> 8) & 255, code & 255


def _write_code(code: int, by: By) -> int | str:
    return format_colour(code) if by == "colour" else code


def _write_list(items: Sequence[Any]) -> str:
    values = list(items)
    return json.dumps(values[0] if len(values) == 1 else values, ensure_ascii=False)


def _require_known(key: Any, keys: Sequence[str], at: str) -> None:
    if key not in keys:
        near = difflib.get_close_matches(str(key), keys, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(keys)}"
        raise DataError(f"{at}: no key {key!r}{hint}")
