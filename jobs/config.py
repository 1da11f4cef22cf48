"""`spikeseg config`: show, check, explain and list configurations of experiments and sweeps."""

import json
import shutil
from collections.abc import Iterable, Sequence

import click

from .cli import NearestGroup, run
from .display.sentences import WIDEST, fill_lines
from .options import overrides_argument


@click.group("config", cls=NearestGroup)
def command() -> None:
    """Show, check, explain and list configurations without starting anything."""


@command.command("show")
@click.argument("recipe")
@overrides_argument
@click.option("--origins", is_flag=True, help="Say where every given value comes from.")
def show(recipe: str, overrides: tuple[str, ...], origins: bool) -> None:
    """Print the whole tree that RECIPE (or a sweep) and FIELD=VALUE come to."""
    from ..platform.config.recipes import dump, flat, load_experiment
    from ..platform.search.sweep_file.sweep_list import is_sweep

    if is_sweep(recipe):
        _show_sweep(recipe, overrides, origins)
        return
    resolved = load_experiment(recipe, overrides)
    if not origins:
        print(dump(resolved.config), end="")
        return
    for key, value in flat(resolved.config).items():
        print(f"{key} = {value}  # {resolved.origins.get(key, 'default')}")


def _show_sweep(recipe: str, overrides: Sequence[str], origins: bool) -> None:
    """Print a sweep with its defaults; with origins, the experiment that its trials start from."""
    from ..platform.config.recipes import flat
    from ..platform.search.sweep_file.plan import load_sweep
    from ..platform.search.sweep_file.sweep_list import dump_sweep

    plan = load_sweep(recipe, overrides)
    print(dump_sweep(plan.recipe), end="")
    if origins:
        print("# What every trial starts from:")
        for key, value in flat(plan.base.config).items():
            print(f"{key} = {value}  # {plan.base.origins.get(key, 'default')}")


@command.command("check")
@click.argument("recipe")
@overrides_argument
def check(recipe: str, overrides: tuple[str, ...]) -> None:
    """Exit with 0 where RECIPE or sweep and FIELD=VALUE are valid, else with 2 and a reason."""
    from ..platform.config.recipes import config_digest, load_experiment
    from ..platform.search.sweep_file.plan import load_sweep
    from ..platform.search.sweep_file.sweep_list import is_sweep

    if is_sweep(recipe):
        plan = load_sweep(recipe, overrides)
        varied = ", ".join(plan.recipe.space.dimensions)
        print(f"{recipe}: valid, {plan.trials} trials over {plan.recipe.base} vary {varied}")
        return
    resolved = load_experiment(recipe, overrides)
    print(f"{recipe}: valid, digest {config_digest(resolved.config)[:12]}")


@command.command("explain")
@click.argument("field")
def explain(field: str) -> None:
    """Say what FIELD means, takes and is by default, and which shipped files set it.

    FIELD is a dotted key, the end of one (lr is optimizer.lr), T or D, or a section; fields of a
    sweep file begin with `sweep.`.
    """
    from ..platform.config.describe_fields import describe_fields
    from ..platform.config.field_kinds import SYMBOLS
    from ..platform.config.recipe_list import find_settings
    from ..platform.config.schema import ExperimentConfig
    from ..platform.search.sweep_file.sweep_list import describe_sweep_fields

    fields = {**describe_fields(ExperimentConfig), **describe_sweep_fields()}
    field = SYMBOLS.get(field, field)
    keys = [field] if field in fields else [key for key in fields if key.endswith(f".{field}")]
    if not keys:
        raise click.UsageError(f"no field {field!r}{_suggest(field, fields)}")
    for index, key in enumerate(keys):
        item = fields[key]
        if index:
            print()
        print(fill_lines(f"{key}: {item.meaning or 'see the fields below'}"))
        print(f"  takes    {item.kind}{f', {item.rule}' if item.rule else ''}")
        print(f"  default  {'none, a recipe gives it' if item.default is None else item.default}")
        settings = [] if item.below else list(find_settings(key))
        for where, _, value in settings:
            print(f"  set in   {where}: {json.dumps(value)}")
        for below in item.below:
            print(_fit(f"  {below}: {fields[below].meaning}"))


def _suggest(field: str, keys: Iterable[str]) -> str:
    """The end of a sentence about a field that is not there."""
    from ..platform.config.errors import nearest

    leaves = {key.rpartition(".")[2]: key for key in keys}
    near = nearest(field.rpartition(".")[2], list(leaves))
    return near or "; `spikeseg config explain model` lists the fields of a section"


@command.command("list")
def list_all() -> None:
    """List the shipped recipes and sweeps: data, size, what they take, what they reached."""
    from ..platform.config.recipe_list import list_recipes
    from ..platform.search.sweep_file.sweep_list import list_sweeps

    _print_lines(("recipe", "data", "input", "steps x images", "about"), list_recipes())
    print()
    _print_lines(("sweep", "base", "data", "takes", "about"), list_sweeps())


@command.command("schema")
@click.option("--sweep", is_flag=True, help="Of sweep files instead of recipes.")
def schema(sweep: bool) -> None:
    """Print the JSON schema of recipe files, with which an editor completes and checks them.

    In VS Code and other editors with YAML support, the first line of a recipe names it:
    `# yaml-language-server: $schema=recipe.schema.json`.
    """
    from ..platform.config.json_schema import make_recipe_schema
    from ..platform.config.schema import ExperimentConfig
    from ..platform.search.sweep_file.sweep_list import make_sweep_schema

    made = make_sweep_schema() if sweep else make_recipe_schema(ExperimentConfig)
    print(json.dumps(made, indent=1))


def _print_lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns; the last one is cut at a whole sentence where it is too long."""
    from ..platform.config.recipe_list import fit_sentences

    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head) - 1)]
    width = min(WIDEST, max(100, shutil.get_terminal_size((WIDEST, 24)).columns))
    room = width - sum(widths) - 2 * len(widths)
    for row in (head, *rows):
        cells = [cell.ljust(size) for cell, size in zip(row, widths, strict=False)]
        print("  ".join([*cells, fit_sentences(row[-1], room)]).rstrip())


def _fit(line: str) -> str:
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 3].rstrip()}..."


if __name__ == "__main__":
    run(command)
