"""`spikeseg benchmark sweep`: trials per hour of a sweep against a plain loop, and empty trials."""

import itertools
import json
import multiprocessing
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ...platform.config.recipes import dump, load_resolved
from ...platform.search.study.samplers import random_points
from ...platform.search.study.trial_records import TrialReport
from ...platform.search.sweep import SweepOptions, sweep
from ...platform.search.sweep_file.plan import SweepPlan, load_sweep
from ...platform.search.sweep_file.space import Point
from ...platform.search.sweep_status import SweepStatus
from ...platform.search.trials.trial_training import WorkOrder
from ...platform.tracking.metric_table import evaluation_metrics
from ..cli import run
from ..options import overrides_argument, plain_logging, storage_option
from .interleaved import take_turns
from .sweep_driver import MARKS, cost_lines, measure_driver


@click.command("sweep")
@click.argument("recipe")
@overrides_argument
@click.option("--trials", type=click.IntRange(1), default=6, show_default=True)
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(0), default=2, show_default=True)
@click.option("--empty", is_flag=True, help="Measure trials that do nothing, too.")
@click.option("--driver", is_flag=True, help="Measure the driver alone, with made-up scores.")
@storage_option
def command(  # noqa: PLR0913
    recipe: str,
    overrides: tuple[str, ...],
    trials: int,
    concurrency: int,
    rounds: int,
    empty: bool,
    driver: bool,
    storage: Path,
) -> None:
    """Train the same points of RECIPE's space as a sweep and as a plain loop, in turns.

    With --driver nothing is trained: CPU seconds a trial of a sweep's own process, with the random
    and the TPE sampler, at 100, 300, 1000, 3000 and 5000 trials (up to --trials).
    """
    plain_logging()
    if driver:
        print_driver_cost(recipe, overrides, storage=storage, trials=trials)
        return
    if empty:
        gaps = seconds_per_empty_trial(recipe, overrides, storage=storage)
        if not gaps:
            raise click.UsageError("--empty needs a sweep of 2 trials or more: sweep.trials=2")
        print(
            f"{len(gaps) + 1} empty trials: {statistics.median(gaps):.2f} s each (median after "
            f"the first; {min(gaps):.2f} to {max(gaps):.2f})"
        )
    measured = compare_with_loop(
        recipe, overrides, storage=storage, trials=trials, concurrency=concurrency, rounds=rounds
    )
    print("round  trials  loop s  sweep s  trials per hour, sweep / loop")
    for number, item in enumerate(measured, 1):
        print(
            f"{number:5d}  {item.trials:6d}  {item.loop_seconds:6.1f}  {item.sweep_seconds:7.1f}  "
            f"{item.ratio:.3f}"
        )


def print_driver_cost(recipe: str, overrides: Sequence[str], *, storage: Path, trials: int) -> None:
    """Print what a driver costs a trial, a table a sampler, each when it is measured.

    Args:
        recipe: As `measure_driver`.
        overrides: Likewise.
        storage: Likewise.
        trials: Trials of each sweep.

    Raises:
        UsageError: Where there are too few trials to measure anything.
    """
    if trials < MARKS[0]:
        raise click.UsageError(f"--driver needs --trials {MARKS[0]} or more, got {trials}")
    for measured in measure_driver(recipe, overrides, storage=storage, trials=trials):
        print("\n".join(cost_lines(*measured)), flush=True)


_TURN_SECONDS = 4.0


@dataclass(frozen=True)
class Round:
    """One measurement of both sides, over the same trainings.

    Attributes:
        loop_seconds: A plain loop in fresh processes, from the first import to the last step.
        sweep_seconds: The sweep, from the first import to the results, Ray's start included.
        trials: Trainings on each side.
    """

    loop_seconds: float
    sweep_seconds: float
    trials: int

    @property
    def ratio(self) -> float:
        """The sweep's trials per hour over the loop's."""
        return self.loop_seconds / self.sweep_seconds


def compare_with_loop(
    recipe: str,
    overrides: Sequence[str],
    *,
    storage: Path,
    trials: int,
    concurrency: int,
    rounds: int,
) -> Iterator[Round]:
    """Run the same trainings as a sweep and as a plain loop, which take turns of a few seconds.

    One after the other would compare the machine with itself at another time: speeds of shared
    machines drift by more than a sweep costs.

    Args:
        recipe: The sweep whose space and base are used; its points are drawn once, at random.
        overrides: Items `field=value` for the base experiment, `sweep.field=value` for the recipe.
        storage: Folder that takes all runs.
        trials: Trainings on each side of a round.
        concurrency: Trainings at once on both sides.
        rounds: Measurements; the side that begins changes each time.

    Yields:
        Each round when it is measured.

    Raises:
        ConfigError: As `load_sweep`.
        RuntimeError: Where one of the sides failed.
    """
    plan = load_sweep(recipe, overrides)
    points = random_points(plan, trials)
    listed = storage / "listed.yaml"
    storage.mkdir(parents=True, exist_ok=True)
    listed.write_text(json.dumps(_listed(plan, points)))
    # Those of the recipe itself are in `listed` already.
    base_overrides = [item for item in overrides if not item.startswith("sweep.")]
    configs = [dump(plan.experiment(point).config) for point in points]
    for number in range(rounds):
        folder = storage / f"round-{number}-{time.time_ns()}"
        sides = [
            ("loop", (_plain_loop, (configs, folder / "loop", concurrency))),
            ("sweep", (_whole_sweep, (str(listed), base_overrides, folder, concurrency))),
        ]
        spent = take_turns(dict(sides[:: 1 if number % 2 == 0 else -1]), seconds=_TURN_SECONDS)
        yield Round(spent["loop"], spent["sweep"], trials)


def seconds_per_empty_trial(recipe: str, overrides: Sequence[str], *, storage: Path) -> list[float]:
    """Seconds between the ends of trials that do nothing, one at a time, from the second on.

    Args:
        recipe: The sweep whose space is drawn from; all its trials are run.
        overrides: Items `field=value` for the base experiment.
        storage: Folder that takes the sweep.
    """
    ends = _timed_sweep(recipe, overrides, storage, 1, empty=True)
    return [after - before for before, after in itertools.pairwise(ends)]


def _listed(plan: SweepPlan, points: Sequence[Point]) -> dict:
    content = plan.recipe.model_dump(mode="json")
    return {
        **content,
        "base": plan.base.recipe,
        "space": content["space"]["dimensions"],
        "trials": None,
        "sampler": {"name": "listed", "seed": 0},
        "pruner": {"rule": "none"},
        "first": list(points),
    }


def _timed_sweep(
    recipe: str, overrides: Sequence[str], storage: Path, concurrency: int, empty: bool = False
) -> list[float]:
    """Run a sweep; returns when each trial ended."""
    ends: list[float] = []

    def show(status: SweepStatus) -> None:
        ends.extend([time.monotonic()] * (status.done - len(ends)))

    options: dict[str, Any] = {"work": report_zeros} if empty else {}
    sweep(
        recipe,
        overrides,
        SweepOptions(storage=storage, concurrency=concurrency),
        progress=lambda line: None,
        show=show,
        **options,
    )
    return ends


def report_zeros(order: WorkOrder) -> Generator[TrialReport, None, None]:
    """A trial that ends at once with zeros."""
    steps = load_resolved(order["config"]).config.trainer.max_steps
    yield TrialReport(steps, dict.fromkeys(evaluation_metrics("panoptic"), 0.0), final=True)


def _whole_sweep(recipe: str, overrides: list[str], storage: Path, concurrency: int) -> None:
    _timed_sweep(recipe, overrides, storage, concurrency)


def _plain_loop(configs: Sequence[str], folder: Path, concurrency: int) -> None:
    """The trainings in as many fresh processes as there are at once; who is free takes the next."""
    folders = [str(folder / str(number)) for number in range(len(configs))]
    with ProcessPoolExecutor(concurrency, multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(train_alone, configs, folders):
            pass


def train_alone(config: str, folder: str) -> None:
    """Train one experiment: no search, no tracker, no Ray.

    Args:
        config: The experiment as YAML.
        folder: Its run folder.
    """
    from ...platform.checkpoint.run_folder import RunFolder
    from ...platform.cluster.worker_group import OneWorker
    from ...platform.train.loop import Training

    run = RunFolder(Path(folder))
    run.claim()
    resolved = load_resolved(config)
    training = Training(resolved.config, run, group=OneWorker(), recorder=None, progress=None)
    training.start()
    for _ in training.evaluations():
        pass


if __name__ == "__main__":
    run(command)
