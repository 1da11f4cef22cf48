"""`spikeseg config`: show a resolved configuration, or only check it."""

import click

from .cli import run
from .options import overrides_argument


@click.group("config")
def command() -> None:
    """Show or check a configuration without starting anything."""


@command.command("show")
@click.argument("recipe")
@overrides_argument
@click.option("--origins", is_flag=True, help="Say where every given value comes from.")
def show(recipe: str, overrides: tuple[str, ...], origins: bool) -> None:
    """Print the whole tree that RECIPE and FIELD=VALUE come to."""
    from ..platform.config.recipes import dump, flat, load_experiment

    resolved = load_experiment(recipe, overrides)
    if not origins:
        print(dump(resolved.config), end="")
        return
    for key, value in flat(resolved.config).items():
        print(f"{key} = {value}  # {resolved.origins.get(key, 'default')}")


@command.command("check")
@click.argument("recipe")
@overrides_argument
def check(recipe: str, overrides: tuple[str, ...]) -> None:
    """Exit with 0 where RECIPE and FIELD=VALUE are valid, with 2 and a reason where not."""
    from ..platform.config.recipes import config_digest, load_experiment

    resolved = load_experiment(recipe, overrides)
    print(f"{recipe}: valid, digest {config_digest(resolved.config)[:12]}")


if __name__ == "__main__":
    run(command)
