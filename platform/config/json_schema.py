"""JSON schema of recipe and sweep files, with which editors complete and check them."""

from typing import Any

from pydantic import BaseModel

from .data_values import FROM_DATA, PICKED_KEYS
from .describe_fields import describe_fields
from .field_kinds import fields_of, sections_of


def make_recipe_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a recipe file: nothing is required, since a recipe extends others.

    Args:
        model: The model of the whole experiment.
    """
    schema = make_schema(model)
    schema["title"] = "spikeseg recipe"
    schema["properties"]["extends"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Recipes that this one starts from: shipped names, or files beside it.",
    }
    for key in PICKED_KEYS:
        _allow_word(schema, key.split("."), FROM_DATA)
    return schema


def make_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model, with its documentation as descriptions and nothing required.

    Args:
        model: The model.
    """
    schema = model.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    definitions = schema.get("$defs", {})
    for node in (schema, *definitions.values()):
        node.pop("required", None)
    _describe(schema, model, definitions, set())
    return schema


def _describe(
    node: dict[str, Any], model: type, definitions: dict[str, Any], seen: set[type]
) -> None:
    """Put the documentation of a model's fields into its part of the schema, and below."""
    if model in seen:
        return
    seen.add(model)
    described = describe_fields(model)
    for name, entry in node.get("properties", {}).items():
        if name in described and described[name].meaning:
            entry["description"] = described[name].meaning
    for annotation in fields_of(model).values():
        for section in sections_of(annotation):
            if section.__name__ in definitions:
                _describe(definitions[section.__name__], section, definitions, seen)


def _allow_word(schema: dict[str, Any], parts: list[str], word: str) -> None:
    """Let a field hold a word besides what its type says."""
    definitions, node = schema.get("$defs", {}), schema
    for part in parts[:-1]:
        node = _follow(node["properties"][part], definitions)
    entry = node["properties"][parts[-1]]
    kept = {key: entry.pop(key) for key in ("description", "title", "default") if key in entry}
    node["properties"][parts[-1]] = {**kept, "anyOf": [entry, {"const": word}]}


def _follow(entry: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The section that a field's part of a schema refers to."""
    references = [entry, *entry.get("anyOf", ()), *entry.get("allOf", ())]
    name = next(item["$ref"] for item in references if "$ref" in item).rpartition("/")[2]
    return definitions[name]
