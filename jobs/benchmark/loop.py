"""`spikeseg benchmark loop`: our training loop against a bare one, `strict` against `flat`."""

import tempfile
from pathlib import Path

import click

from ..cli import run
from ..options import overrides_argument


@click.command("loop")
@click.argument("recipe", default="shapes_tiny")
@overrides_argument
@click.option("--pairs", default=30, show_default=True, help="Pairs of chunks of steps.")
@click.option("--steps", default=4, show_default=True, help="Steps of one chunk.")
@click.option("--workers", default=2, show_default=True, help="Workers of the reductions.")
def command(recipe: str, overrides: tuple[str, ...], pairs: int, steps: int, workers: int) -> None:
    """Measure RECIPE's training step in turns with a bare loop; shapes are generated if needed."""
    from ...datasets.layouts.shapes import Shapes, ShapesOptions
    from ...datasets.packed.pack import pack
    from ...platform.config.recipes import load_experiment
    from ...platform.train.overhead import loop_overhead, strict_cost, table

    with tempfile.TemporaryDirectory() as folder:
        given = list(overrides)
        if recipe.startswith("shapes") and not any(g.startswith("data.path=") for g in given):
            options = ShapesOptions(train=64, val=8, test=1)
            pack("shapes", Shapes(options), Path(), Path(folder) / "shapes", workers=1)
            given.append(f"data.path={folder}/shapes")
        resolved = load_experiment(recipe, given)
        print(
            "\n".join(
                table(
                    {
                        "our loop / bare loop, CPU time of a step": loop_overhead(
                            resolved, pairs=pairs, steps=steps
                        ),
                        f"strict / flat, one reduction, {workers} workers": strict_cost(
                            resolved, workers=workers, pairs=pairs
                        ),
                    }
                )
            )
        )


if __name__ == "__main__":
    run(command)
