"""One line a sweep, its documented fields, and the JSON schema of its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ...config.describe_fields import FieldDescription, describe_fields
from ...config.json_schema import make_schema
from ...config.recipe_list import describe_recipe, read_comment
from ...config.recipes import recipe_names
from ...config.yaml_source import read_yaml
from .dimensions import Choices, Floats, Integers
from .plan import SWEEPS, sweep_names
from .schema import SweepRecipe


class SweepLine(NamedTuple):
    """What a list of sweeps shows of one.

    Attributes:
        name: Its name.
        base: The recipe that its trials start from.
        data: Name of the packed data.
        takes: Trials, and over how many dimensions.
        about: The first comment of its file.
    """

    name: str
    base: str
    data: str
    takes: str
    about: str


def list_sweeps() -> list[SweepLine]:
    """The shipped sweeps, by name."""
    return [_describe(name) for name in sweep_names()]


def _describe(name: str) -> SweepLine:
    path = SWEEPS / f"{name}.yaml"
    content, _ = read_yaml(path)
    trials = content.get("trials", len(content.get("first", ())))
    count = len(content["space"])
    return SweepLine(
        name=name,
        base=content["base"],
        data=describe_recipe(content["base"]).data,
        takes=f"{trials} trials, {count} {'field' if count == 1 else 'fields'}",
        about=read_comment(path),
    )


def describe_sweep_fields() -> Mapping[str, FieldDescription]:
    """`sweep.FIELD` -> description of every field of a sweep file."""
    return describe_fields(SweepRecipe, "sweep.")


def make_sweep_schema() -> dict[str, Any]:
    """The JSON schema of a sweep file, in which `space` maps fields to dimensions."""
    schema = make_schema(SweepRecipe)
    schema["title"] = "spikeseg sweep"
    definitions = schema["$defs"]
    dimensions = definitions.pop("Space")["properties"]["dimensions"]
    dimensions["additionalProperties"] = {
        "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in (Choices, Integers, Floats)]
    }
    schema["properties"]["space"] = {
        **dimensions,
        "description": "Field of the experiment -> what may be drawn for it.",
    }
    for kind in (Choices, Integers, Floats):
        # A single value of a condition needs no list.
        definitions[kind.__name__]["properties"]["when"] = {"type": "object"}
    return schema


def dump_sweep(recipe: SweepRecipe) -> str:
    """A sweep with all its defaults as YAML, in the form of a sweep file."""
    content = recipe.model_dump(mode="json")
    content["space"] = {
        key: {name: value for name, value in dimension.items() if name != "kind" and value != {}}
        for key, dimension in content["space"]["dimensions"].items()
    }
    return yaml.safe_dump(content, sort_keys=False)


def is_sweep(recipe: str) -> bool:
    """Whether a word names a sweep: a shipped one, or a file that holds `base` and `space`.

    Args:
        recipe: Name of a shipped recipe or sweep, or path of a YAML file.
    """
    if recipe in recipe_names():
        return False
    path = Path(recipe)
    if recipe in sweep_names() or not path.is_file():
        return recipe in sweep_names()
    content, _ = read_yaml(path)
    return isinstance(content, dict) and "base" in content and "space" in content
