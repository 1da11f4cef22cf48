"""`spikeseg benchmark tracking`: step time with and without tracking, in turns."""

import statistics
import tempfile
from pathlib import Path

import click

from ..cli import run


@click.command("tracking")
@click.option("--steps", default=20, show_default=True, help="Steps of one turn, at least 3.")
@click.option("--pairs", default=8, show_default=True, help="Turns of each kind.")
def command(steps: int, pairs: int) -> None:
    """Train shapes_tiny twice in turns on generated data, one copy tracked in full."""
    from ...datasets.layouts.shapes import Shapes, ShapesOptions
    from ...datasets.packed.pack import pack
    from ...platform.config.recipes import load_experiment
    from ...platform.tracking_cost import measure_tracking

    if steps < 3:
        raise click.UsageError("--steps must be at least 3")
    with tempfile.TemporaryDirectory(prefix="spikeseg-benchmark-") as folder:
        storage = Path(folder)
        generated = Shapes(ShapesOptions(train=64, val=8, test=1, seed=1))
        pack("shapes", generated, Path(), storage / "shapes", progress=lambda done, total: None)
        given = [
            f"data.path={storage / 'shapes'}",
            "trainer.workers=0",
            "trainer.log_every=1",
            f"trainer.evaluate_every={steps}",
            f"trainer.max_steps={steps * pairs}",
            "optimizer.warmup_steps=0",
            "tracking.images=4",
        ]
        cost = measure_tracking(load_experiment("shapes_tiny", given), storage)
    print(f"{cost.steps} steps of each kind, every step recorded, sqlite, turns of {steps} steps")
    print("median step time, ms      plain   tracked    ratio")
    for plain, tracked in cost.pairs:
        print(f"{'':20}{plain:11.2f}{tracked:10.2f}{tracked / plain:9.3f}")
    ratios = cost.ratios()
    print(
        f"median of ratios {statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"
    )
    print(f"training thread in the journal: {1000 * cost.thread_ms:.0f} us of CPU a step,")
    print(f"  {cost.evaluation_ms:.2f} ms of CPU an evaluation (drawing its pictures not counted)")
    plain, tracked = cost.process_ms
    print(f"whole process, sender included: {plain:.2f} -> {tracked:.2f} ms of CPU a step")


if __name__ == "__main__":
    run(command)
