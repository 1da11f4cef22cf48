"""A sweep's files as they travel to another machine: the sweep, and a base of one's own."""

import yaml

from ...config.errors import ConfigError
from ...config.recipes import flatten_recipe, recipe_names
from ...config.yaml_source import read_yaml
from .plan import find_base, find_sweep, sweep_names

_SWEEP, _BASE = "sweep.yaml", "base.yaml"


def flatten_sweep(recipe: str) -> tuple[str, dict[str, str]]:
    """Read a sweep and its base, with everything that the base extends.

    Args:
        recipe: Name of a shipped sweep, or path of a YAML file.

    Returns:
        The sweep's name on another machine, and text by file name; none of a shipped sweep, or of
        a base that is shipped.

    Raises:
        ConfigError: Where a file cannot be read.
    """
    if recipe in sweep_names():
        return recipe, {}
    path = find_sweep(recipe)
    content, lines = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a sweep is a mapping, got {type(content).__name__}")
    files = {}
    base = content.get("base")
    if isinstance(base, str) and base not in recipe_names():
        files[_BASE] = flatten_recipe(find_base(base, lines.get("base", str(path)), str(path)))
        content["base"] = _BASE
    files[_SWEEP] = yaml.safe_dump(content, sort_keys=False)
    return _SWEEP, files
