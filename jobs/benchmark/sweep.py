"""`spikeseg benchmark sweep`: trials per hour of a sweep against a plain loop, and empty trials."""

import statistics
from pathlib import Path

import click

from ..cli import run
from ..options import overrides_argument, plain_logging, progress_printer, storage_option


@click.command("sweep")
@click.argument("recipe")
@overrides_argument
@click.option("--trials", type=click.IntRange(1), default=6, show_default=True)
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(0), default=2, show_default=True)
@click.option("--empty", is_flag=True, help="Measure trials that do nothing, too.")
@storage_option
def command(
    recipe: str,
    overrides: tuple[str, ...],
    trials: int,
    concurrency: int,
    rounds: int,
    empty: bool,
    storage: Path,
) -> None:
    """Train the same points of RECIPE's space as a sweep and as a plain loop, in turns."""
    from ...platform.search.overhead import compare_with_loop, seconds_per_empty_trial

    plain_logging()
    if empty:
        gaps = seconds_per_empty_trial(recipe, overrides, storage=storage)
        if not gaps:
            raise click.UsageError("--empty needs a sweep of 2 trials or more: sweep.trials=2")
        print(
            f"{len(gaps) + 1} empty trials: {statistics.median(gaps):.2f} s each (median after "
            f"the first; {min(gaps):.2f} to {max(gaps):.2f})"
        )
    measured = compare_with_loop(
        recipe,
        overrides,
        storage=storage,
        trials=trials,
        concurrency=concurrency,
        rounds=rounds,
        progress=progress_printer(),
    )
    print("\nround  trials  loop s  sweep s  trials per hour, sweep / loop")
    for number, item in enumerate(measured, 1):
        print(
            f"{number:5d}  {item.trials:6d}  {item.loop_seconds:6.1f}  {item.sweep_seconds:7.1f}  "
            f"{item.ratio:.3f}"
        )


if __name__ == "__main__":
    run(command)
