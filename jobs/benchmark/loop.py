"""`spikeseg benchmark loop`: our training loop against a bare one, `strict` against `flat`."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import torch
import torch.distributed
from torch import nn
from torch.multiprocessing.spawn import spawn

from ...platform.checkpoint.run_folder import RunFolder
from ...platform.cluster.worker_group import OneWorker, ProcessGroup
from ...platform.config.recipes import Resolved, override
from ...platform.config.schema import ExperimentConfig
from ...platform.train.faults.worker_guard import Guard
from ...platform.train.loop import Training
from ...platform.train.passes.reduction import StepVector, micro_batch_range
from ...platform.train.preparation import build_seeded_model
from ...platform.train.state import TrainingState
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

    with tempfile.TemporaryDirectory() as folder:
        items = list(overrides)
        if recipe.startswith("shapes") and not any(g.startswith("data.path=") for g in items):
            options = ShapesOptions(train=64, val=8, test=1)
            pack("shapes", Shapes(options), Path(), Path(folder) / "shapes", workers=1)
            items.append(f"data.path={folder}/shapes")
        resolved = load_experiment(recipe, items)
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


@dataclass(frozen=True)
class PairedRatio:
    """Two candidates measured in turns.

    Attributes:
        seconds: Median seconds of a step of the first and of the second candidate.
        ratio: Median over pairs of second / first.
        low: Lower end of the median's 95 % interval (order statistics of the pairs).
        high: Upper end.
        pairs: Number of pairs.
    """

    seconds: tuple[float, float]
    ratio: float
    low: float
    high: float
    pairs: int


def loop_overhead(resolved: Resolved, *, pairs: int, steps: int) -> PairedRatio:
    """CPU seconds of this process per step: a bare loop against ours, same model, data, reduction.

    The bare loop reads the same micro-batches ahead in a thread, sums the same flat vector, clips,
    updates weights and averages; it logs nothing, watches nothing and can survive nothing.

    Args:
        resolved: The experiment; it is trained in this process.
        pairs: Pairs of chunks, after one that is thrown away.
        steps: Steps of one chunk.
    """
    last = 2 * (pairs + 1) * steps
    values = {"trainer.workers": 0, "trainer.max_steps": last, "trainer.evaluate_every": last}
    config = override(resolved, values, "benchmark").config
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "ours")
        run.claim()
        ours = Training(config, run, group=OneWorker(), recorder=None, progress=lambda line: None)
        ours.start()
        bare = _BareLoop(config)
        with Guard(config.trainer, run.path, attempt=1, rank=0) as guard:
            return _in_turns(
                lambda: bare.advance(bare.step + steps),
                lambda: ours.advance(ours.step + steps, guard),
                pairs=pairs,
                each=steps,
                clock=time.process_time,
            )


class _BareLoop:
    """What a person would write for this experiment in one process without a platform."""

    def __init__(self, config: ExperimentConfig) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = RunFolder(Path(folder))
            run.claim()
            # Built alike, so that both loops have the same model, criterion and rows.
            parts = Training(config, run, group=OneWorker(), recorder=None, progress=None)
            parts.start()
        self.step = 0
        self._config = config
        self._state: TrainingState = parts.state
        self._criterion = parts.criterion
        self._rows = parts.rows
        self._schedule = parts.schedule
        self._vector = _vector(self._state.model, config, OneWorker(), "flat", len(self.terms))

    @property
    def terms(self) -> Sequence[str]:
        """Names of the loss terms."""
        return self._criterion.terms

    def advance(self, target: int) -> None:
        """Train up to a step."""
        clip, total = self._config.optimizer.clip_norm, self._config.trainer.micro_batches
        state = self._state
        state.model.train()
        for batches in self._rows.steps(self.step, target, range(total)):
            self._schedule.begin(self.step, state.optimizer)
            count = torch.zeros((), dtype=torch.float64)
            for batch in batches:
                count += self._criterion.count(batch.targets)
            normalizer = (count / total).float()
            self._vector.begin()
            for index, batch in enumerate(batches):
                images = batch.images.to(memory_format=torch.channels_last)
                terms = self._criterion(state.model(images), batch.targets, normalizer)
                (torch.stack(list(terms.values())).sum() / total).backward()
                self._vector.add(index, [terms[name].detach() for name in self.terms])
            self._vector.reduce()
            norm = float(torch.linalg.vector_norm(self._vector.gradient))
            if clip is not None and norm > clip:
                self._vector.gradient.mul_(clip / (norm + 1e-6))
            state.optimizer.step()
            if state.average is not None:
                state.average.update_parameters(state.model)
            self.step += 1


def strict_cost(resolved: Resolved, *, workers: int, pairs: int) -> PairedRatio:
    """Wall seconds of one reduction over gloo workers: `flat` against `strict`.

    Args:
        resolved: The experiment, for its model and its number of micro-batches.
        workers: Processes, at most the experiment's micro-batches.
        pairs: Pairs of reductions, after one that is thrown away.

    Raises:
        ValueError: Where there are more workers than micro-batches.
    """
    if workers > resolved.config.trainer.micro_batches:
        raise ValueError(
            f"workers must not exceed micro_batches ({resolved.config.trainer.micro_batches}), "
            f"got {workers}"
        )
    with tempfile.TemporaryDirectory() as folder:
        spawn(_reduce_worker, args=(workers, folder, resolved.config, pairs), nprocs=workers)
        numbers: PairedRatio = torch.load(Path(folder) / "ratio.pt", weights_only=False)
    return numbers


def _reduce_worker(
    rank: int, workers: int, folder: str, config: ExperimentConfig, pairs: int
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=workers
    )
    group = ProcessGroup()
    model = build_seeded_model(config)
    kinds: tuple[Literal["flat", "strict"], ...] = ("flat", "strict")
    flat, strict = (_vector(model, config, group, kind, 1) for kind in kinds)

    def reduce(vector: StepVector) -> None:
        vector.begin()
        for index in micro_batch_range(config.trainer.micro_batches, group):
            vector.add(index, [torch.zeros(())])
        torch.distributed.barrier()
        vector.reduce()

    ratio = _in_turns(
        lambda: reduce(flat), lambda: reduce(strict), pairs=pairs, each=1, clock=time.perf_counter
    )
    if rank == 0:
        torch.save(ratio, Path(folder) / "ratio.pt")
    torch.distributed.destroy_process_group()


def _vector(
    model: nn.Module,
    config: ExperimentConfig,
    group: OneWorker | ProcessGroup,
    reduction: Literal["flat", "strict"],
    num_terms: int,
) -> StepVector:
    return StepVector(
        model,
        num_terms=num_terms,
        micro_batches=config.trainer.micro_batches,
        group=group,
        reduction=reduction,
    )


def _in_turns(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    pairs: int,
    each: int,
    clock: Callable[[], float],
) -> PairedRatio:
    """Time both in turns, the order within a pair changing, the first pair thrown away."""
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs + 1):
        order = (0, 1) if pair % 2 else (1, 0)
        for which in order:
            started = clock()
            (first, second)[which]()
            times[which].append((clock() - started) / each)
    ratios = sorted(b / a for a, b in zip(times[0][1:], times[1][1:], strict=True))
    # Order statistics around the median: 95 % by the normal form of the binomial.
    reach = 0.98 * pairs**0.5
    low = ratios[max(0, int(pairs / 2 - reach))]
    high = ratios[min(pairs - 1, int(pairs / 2 + reach))]
    medians = (statistics.median(times[0][1:]), statistics.median(times[1][1:]))
    return PairedRatio(medians, statistics.median(ratios), low, high, pairs)


def table(rows: dict[str, PairedRatio]) -> list[str]:
    """Lines of a table, ratios with their intervals.

    Args:
        rows: What was compared -> its result.
    """
    lines = [f"{'second / first':44} {'first':>10} {'second':>10} {'ratio':>7}  95 % interval"]
    for name, row in rows.items():
        first, second = (f"{1000 * seconds:.2f} ms" for seconds in row.seconds)
        lines.append(
            f"{name:44} {first:>10} {second:>10} {row.ratio:7.3f}  "
            f"{row.low:.3f} to {row.high:.3f} ({row.pairs} pairs)"
        )
    return lines


if __name__ == "__main__":
    run(command)
