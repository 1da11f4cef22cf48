"""One line a recipe: its data, size, what it takes, and what its file says of it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .recipes import RECIPES, read_recipe_tree, recipe_names
from .yaml_source import read_yaml

_FROM_DATA = "as data"
_SENTENCE = re.compile(r"(?<=[.;!?])\s")
_RESULT = re.compile(r"[:,] (\d+(?:\.\d+)? (?:test |val )?mIoU\b.*?)(?:\.(?=\s|$)|$)")


class RecipeLine(NamedTuple):
    """What a list of recipes shows of one.

    Attributes:
        name: Its name.
        data: Name of its packed data.
        size: Height x width of a training input, and the network's channels.
        takes: Steps x images of a step.
        about: What it reached, where its file says so, and what the file's first comment says.
    """

    name: str
    data: str
    size: str
    takes: str
    about: str


def list_recipes() -> list[RecipeLine]:
    """The shipped recipes, by name."""
    return [describe_recipe(name) for name in recipe_names()]


def describe_recipe(recipe: str) -> RecipeLine:
    """A recipe's line; values that it leaves to the data are `from data`.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.
    """
    tree, _ = read_recipe_tree(recipe)
    shipped = RECIPES / f"{recipe}.yaml"
    return RecipeLine(
        name=Path(recipe).stem,
        data=Path(str(look_up(tree, "data.path", "-"))).name,
        size=_describe_size(tree),
        takes=_describe_length(tree),
        about=_put_result_first(read_comment(shipped if shipped.is_file() else Path(recipe))),
    )


def look_up(tree: Mapping[str, Any], key: str, default: Any) -> Any:
    """A value of a tree by its dotted key."""
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def read_comment(path: Path) -> str:
    """The comment at the top of a YAML file, as one text; empty where there is none."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines)


def _put_result_first(comment: str) -> str:
    result = _RESULT.search(comment)
    if result is None:
        return comment
    rest = f"{comment[: result.start()]}.{comment[result.end() :]}"
    return f"{result[1]}. {rest}"


def fit_sentences(text: str, width: int) -> str:
    """As many whole sentences of a text as fit into a width, else its beginning and `...`."""
    shown = ""
    for sentence in _SENTENCE.split(text):
        longer = f"{shown} {sentence}".strip()
        if len(longer) > width:
            break
        shown = longer
    shown = shown.rstrip(";")
    return shown or (text if len(text) <= width else f"{text[: max(0, width - 3)].rstrip()}...")


def _describe_size(tree: Mapping[str, Any]) -> str:
    crop = look_up(tree, "data.transform.crop", "-")
    size = (
        "x".join(map(str, crop))
        if isinstance(crop, list)
        else str(crop).replace("from_data", _FROM_DATA)
    )
    dims = look_up(tree, "model.backbone.embed_dims", None)
    return f"{size}, {dims[-1]} channels" if isinstance(dims, list) else size


def _describe_length(tree: Mapping[str, Any]) -> str:
    steps = look_up(tree, "trainer.max_steps", "-")
    micro = look_up(tree, "trainer.micro_batch_size", "-")
    batches = look_up(tree, "trainer.micro_batches", 1)
    known = all(isinstance(value, int | float) for value in (micro, batches))
    images = str(int(micro * batches)) if known else _FROM_DATA
    steps = (
        f"{steps:g}" if isinstance(steps, float) else str(steps).replace("from_data", _FROM_DATA)
    )
    return f"{steps} x {images}"


def find_settings(key: str) -> Iterator[tuple[str, str, Any]]:
    """Where shipped recipe files set a field or a field below it.

    Args:
        key: Dotted key.

    Yields:
        File and line, the key, and its value.
    """
    for path in sorted(RECIPES.glob("*.yaml")):
        content, lines = read_yaml(path)
        for name, line in lines.items():
            if name == key and isinstance(content, dict):
                yield f"{path.name}:{line.rpartition(':')[2]}", name, look_up(content, name, None)
