"""`spikeseg benchmark search`: our samplers and pruners and other tools' on replayed curves."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

from ...datasets.packed.files import write_file
from ...platform.evaluation.seed_statistics import summarize
from ...platform.search.groups.comparisons import compare_with
from ..cli import run
from .search_methods import ONE, SEVERAL, Searcher
from .search_replay import Score, replay, score
from .search_worlds import FAMILIES, World

_TRAININGS = 20
_TRAINING = 8 * 30.0 * 2.0
_MARKS = (0.5, 1.0)
Scores = dict[str, dict[int, dict[str, list[float]]]]
"""Searcher -> seed -> family -> volume and regret at each mark."""


@click.command("search")
@click.option("--seeds", type=click.IntRange(2), default=20, show_default=True)
@click.option("--trainings", type=click.IntRange(2), default=_TRAININGS, show_default=True)
@click.option("--family", "families", type=click.Choice(sorted(FAMILIES)), multiple=True)
@click.option("--searcher", "names", multiple=True, help="Name of a row; all if not given.")
@click.option("--objectives", type=click.Choice(["1", "2"]), default="2", show_default=True)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file of all scores; those that it holds are not replayed again.",
)
def command(  # noqa: PLR0913
    seeds: int,
    trainings: int,
    families: tuple[str, ...],
    names: tuple[str, ...],
    objectives: str,
    processes: int,
    output: Path | None,
) -> None:
    """Replay sweeps through our keeper and through other tools' rules; print a table a score.

    Each searcher gets the device-seconds of about 20 whole trainings on 4 devices in every family
    of curves, once a seed; a row's 95 % interval and its test against random search are over seeds.
    """
    known = SEVERAL if objectives == "2" else ONE
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"--searcher: got {unknown[0]!r}: must be one of {list(known)}")
    chosen = list(dict.fromkeys([next(iter(known)), *(names or known)]))
    asked = list(families or FAMILIES)
    scores = read_scores(output)
    for name in chosen:
        found = scores.setdefault(name, {})
        jobs = [
            (objectives == "2", name, seed, asked, float(trainings))
            for seed in range(seeds)
            if not set(asked) <= set(found.get(seed, {}))
        ]
        seconds = 0.0
        for job, (values, spent) in zip(jobs, _work(jobs, processes), strict=True):
            found[job[2]] = found.get(job[2], {}) | values
            seconds += spent
        if output is not None:
            write_file(output, json.dumps(scores, indent=1))
        print(f"{name}: {len(jobs)} seeds, {seconds:.0f} s", flush=True)
    scores = {name: {seed: scores[name][seed] for seed in range(seeds)} for name in chosen}
    print("\n".join(table_lines(scores, asked)))


def read_scores(output: Path | None) -> Scores:
    """Scores of an earlier command with the same budget; none where there is no file.

    Args:
        output: Its file.
    """
    if output is None or not output.is_file():
        return {}
    content = json.loads(output.read_text())
    return {
        name: {int(seed): values for seed, values in found.items()}
        for name, found in content.items()
    }


def _work(
    jobs: Sequence[tuple[bool, str, int, list[str], float]], processes: int
) -> Iterator[tuple[dict[str, list[float]], float]]:
    if processes == 1:
        yield from map(replay_families, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(replay_families, jobs)


def replay_families(
    job: tuple[bool, str, int, list[str], float],
) -> tuple[dict[str, list[float]], float]:
    """Replay one searcher with one seed in each family.

    Args:
        job: Whether it has several objectives, its name, the seed, the families, and the budget in
            whole trainings of T = 2.

    Returns:
        Family -> volume and regret at half and at the whole budget; and CPU seconds spent.
    """
    several, name, seed, families, trainings = job
    build: Callable[[int], Searcher] = (SEVERAL if several else ONE)[name]
    began = time.process_time()
    budget = trainings * _TRAINING
    found = {}
    for family in families:
        world = World.draw(family, seed)
        results = replay(world, build(seed), budget=budget)
        marks: list[Score] = [score(world, results, spent=share * budget) for share in _MARKS]
        found[family] = [value for item in marks for value in (item.volume, item.regret)]
    return found, time.process_time() - began


def table_lines(scores: Scores, families: Sequence[str]) -> list[str]:
    """Tables in Markdown: one a score and mark, a row a searcher, a column a family.

    Args:
        scores: Searcher -> seed -> family -> values; the first searcher is the reference.
        families: Columns.
    """
    lines: list[str] = []
    for index, (what, sign) in enumerate(
        (f"{what} at {share:.0%} of the budget", sign)
        for share in _MARKS
        for what, sign in (("hypervolume (share of the largest)", 1), ("regret (mIoU)", -1))
    ):
        lines += ["", f"{what}:", "", "| searcher | " + " | ".join([*families, "mean"]) + " |"]
        lines.append("|---" * (len(families) + 2) + "|")
        columns = [_column(scores, [family], index, sign) for family in families]
        columns.append(_column(scores, families, index, sign))
        lines += [
            f"| {name} | " + " | ".join(column[name] for column in columns) + " |"
            for name in scores
        ]
    return lines


def _column(scores: Scores, families: Sequence[str], index: int, sign: int) -> Mapping[str, str]:
    """Cells of one column: mean and half the interval; `+` and `-` where it differs from random."""
    names = list(scores)
    values = {
        number: {
            seed: sign * sum(found[family][index] for family in families) / len(families)
            for seed, found in scores[name].items()
        }
        for number, name in enumerate(names)
    }
    compared = compare_with(values, 0)
    cells = {}
    for number, name in enumerate(names):
        summary = summarize(list(values[number].values()))
        assert summary.high is not None
        item = compared.get(number)
        mark = "" if item is None else " +" if item.better else " -" if item.worse else ""
        digits = 3 if sign == 1 else 2
        half = summary.high - summary.mean
        cells[name] = f"{sign * summary.mean:.{digits}f} ± {half:.{digits}f}{mark}"
    return cells


if __name__ == "__main__":
    run(command)
