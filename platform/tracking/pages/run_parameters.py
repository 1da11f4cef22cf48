"""The few parameters that MLflow shows of a run: those that tell it from others of its kind.

The whole configuration is the artifact `config.yaml`.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config.recipes import PLACES, RECIPES, ConfigError, Resolved, flat, load_experiment
from ...config.yaml_source import yaml_word

MOST_PARAMETERS = 20
"""Parameters of one run; a table of more is not read."""
_ALWAYS = (
    "model.neuron.timesteps",
    "model.neuron.levels",
    "model.neuron.normalization",
    "name",
    "data.path",
    "seed",
)
_OTHERS = "other changes"


def changed_fields(resolved: Resolved) -> list[str]:
    """Fields that a person or a sweep set, that hold paths, or that differ from the recipe.

    Args:
        resolved: The experiment.

    Returns:
        Dotted keys, those of the command line and of a sweep first; a key may name a whole section.
    """
    tree = resolved.config.model_dump(mode="json")
    keys = [key for key, at in resolved.origins.items() if at in ("command line", "sweep")]
    # A recipe may name them from the folder where it is started, which is not the next one's.
    keys += [key for key in PLACES if key not in keys and value_at(tree, key) is not None]
    with contextlib.suppress(ConfigError):
        # A sweep's recipe, say, changes its base in ways that no origin above tells.
        words = [f"{key}={yaml_word(value_at(tree, key))}" for key in keys]
        again, wanted = (
            flat(load_experiment(recipe_of(resolved), words).config),
            flat(resolved.config),
        )
        keys += [key for key, value in wanted.items() if again.get(key) != value]
    return keys


def recipe_of(resolved: Resolved) -> str:
    """Name or path of an experiment's recipe; of one that was read back, by where its name stands.

    Args:
        resolved: The experiment.
    """
    source = Path(resolved.origins.get("name", "").rpartition(":")[0])
    is_file = bool(source.suffix) and source.parent != RECIPES
    return resolved.recipe or (str(source) if is_file else resolved.config.name)


def run_parameters(resolved: Resolved, changed: Sequence[str]) -> dict[str, str]:
    """Parameters of a run: what its sweep varies, neuron, data, seed, then what was changed.

    Args:
        resolved: The experiment.
        changed: `changed_fields` of it.

    Returns:
        Dotted key -> value, `MOST_PARAMETERS` at most; where more fields were changed, one entry
        says how many.
    """
    values = flat(resolved.config)
    varied = [key for key, at in resolved.origins.items() if at == "sweep"]
    wanted = _leaves(values, [*varied, *_ALWAYS, *changed])
    if len(wanted) <= MOST_PARAMETERS:
        return {key: str(values[key]) for key in wanted}
    shown = wanted[: MOST_PARAMETERS - 1]
    more = f"{len(wanted) - len(shown)} more, in config.yaml"
    return {**{key: str(values[key]) for key in shown}, _OTHERS: more}


def value_at(tree: Mapping[str, Any], key: str) -> Any:
    """Value of a dotted key in nested mappings.

    Raises:
        KeyError: Where there is none.
    """
    node: Any = tree
    for part in key.split("."):
        node = node[part]
    return node


def _leaves(values: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Every field that a key names or that lies below it, once, in the order of the keys."""
    found = (
        [key] if key in values else [name for name in values if name.startswith(f"{key}.")]
        for key in keys
    )
    return list(dict.fromkeys(name for names in found for name in names))
