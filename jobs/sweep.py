"""`spikeseg sweep`: search a space of experiments for several objectives."""

from pathlib import Path

import click

from .cli import run
from .options import overrides_argument, plain_logging, progress_printer, storage_option


@click.command("sweep")
@click.argument("recipe")
@overrides_argument
@click.option("--trials", type=click.IntRange(1), help="Trials in all; the recipe's if not given.")
@click.option("--resume", metavar="NAME", help="Continue a sweep of this name.")
@click.option("--concurrency", type=click.IntRange(1), help="Trials at a time.")
@storage_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    trials: int | None,
    resume: str | None,
    concurrency: int | None,
    storage: Path,
) -> None:
    """Run the sweep RECIPE (a shipped name or a YAML file)."""
    from ..platform.search.tuner import sweep

    plain_logging()
    outcome = sweep(
        recipe,
        overrides,
        trials=trials,
        storage=storage,
        resume=resume,
        concurrency=concurrency,
        progress=progress_printer(),
    )
    states = ", ".join(f"{count} {state}" for state, count in outcome.counts.items())
    print(f"\n{outcome.name}: {states}")
    if outcome.best is not None:
        print(f"best trial: {outcome.best.number}")
        for key, value in outcome.best.params.items():
            print(f"  {key} = {value}")
        for key, value in outcome.best.values.items():
            print(f"  {key}: {value:.5g}")
    print(f"results:  {outcome.folder}")
    print(f"continue: spikeseg sweep {recipe} --resume {outcome.name} --storage {storage}")
    print(f"compare:  spikeseg ui --storage {storage}")


if __name__ == "__main__":
    run(command)
