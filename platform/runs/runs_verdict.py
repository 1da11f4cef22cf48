"""What a comparison of runs says, in sentences: what differs, how much, per class, and if seeds."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..evaluation.baselines import known_baselines
from ..evaluation.number_text import round_difference, round_metric
from ..evaluation.seed_statistics import Difference, compare_seeds, summarize
from .run_state import read_json
from .run_table import RunGroup, differing_fields

_SCORES = ("test/mIoU", "val/mIoU")
_MOST_FIELDS = 8
_ONE_SEED = "cannot be told from one seed"


class ClassDifference(NamedTuple):
    """A class's IoU in two experiments, mean over seeds.

    Attributes:
        name: The class.
        first: IoU in percent in the first experiment; None where it never occurs.
        second: In the second.
        difference: Second minus first; None where one is missing.
    """

    name: str
    first: float | None
    second: float | None
    difference: Difference | None


def write_verdict(groups: Sequence[RunGroup]) -> list[str]:
    """The sentences at the top of a report over runs.

    Args:
        groups: Runs of one experiment together, as `group_runs` returns them.
    """
    sentences = list(_describe_differences(groups))
    name = _shared_score(groups)
    if name is None:
        return [*sentences, "No score is measured in all of them, so none is compared."]
    if len(groups) == 1:
        only = groups[0]
        count = len(only.metrics[name])
        told = "" if count > 1 else f" The spread of seeds {_ONE_SEED}."
        seeds = f"{count} seeds" if count > 1 else "one seed"
        return [*sentences, f"{name} is {_round_mean(name, only)} ({seeds}).{told}"]
    ordered = sorted(groups, key=lambda group: -summarize(group.metrics[name]).mean)
    first = ordered[0]
    for other in ordered[1:]:
        sentences.append(_compare(name, other, first, len(ordered) - 1))
    sentences += _describe_baselines(groups, name.partition("/")[0])
    return sentences


def _describe_differences(groups: Sequence[RunGroup]) -> list[str]:
    if len(groups) == 1:
        return []
    keys = differing_fields(groups)
    if not keys:
        data = {str(group.fields.get("data.path")) for group in groups}
        return [f"They differ in their data: {', '.join(sorted(data))}."]
    shown = [
        f"{key}: {', '.join(dict.fromkeys(json.dumps(g.fields.get(key)) for g in groups))}"
        for key in keys[:_MOST_FIELDS]
    ]
    more = f"; and {len(keys) - _MOST_FIELDS} more fields" if len(keys) > _MOST_FIELDS else ""
    several = "; so no difference is due to one field alone" if len(keys) > 1 else ""
    return [f"What differs: {'; '.join(shown)}{more}{several}."]


def _shared_score(groups: Sequence[RunGroup]) -> str | None:
    """The score that every group has, of the test split where all have one."""
    return next((n for n in _SCORES if all(n in group.metrics for group in groups)), None)


def _compare(name: str, other: RunGroup, first: RunGroup, comparisons: int) -> str:
    difference = compare_seeds(other.metrics[name], first.metrics[name], comparisons=comparisons)
    values = [_round_mean(name, group) for group in (first, other)]
    shown = round_difference(name, difference.value)
    text = f"{name}: {first.label} {values[0]}, {other.label} {values[1]}, difference {shown}"
    if not shown.strip("+-0."):
        return f"{text}: a tie."
    if not difference.known:
        return (
            f"{text}. Whether that is more than the spread of seeds cannot be told from one seed."
        )
    if difference.beyond_seeds:
        return f"{text}: more than the spread of seeds (Welch, 95 %)."
    return f"{text}: within the spread of seeds (Welch, 95 %), none is better."


def _round_mean(name: str, group: RunGroup) -> str:
    summary = summarize(group.metrics[name])
    return round_metric(name, summary.mean, summary.half_width)


def _describe_baselines(groups: Sequence[RunGroup], split: str) -> list[str]:
    for group in groups:
        last = {name: values[-1] for name, values in group.metrics.items()}
        known = known_baselines(last, split)
        if known:
            text = ", ".join(f"{name} {value:.1f}" for name, value in known.items())
            return [f"Answers that ignore the image score on {split}: {text}."]
    return []


def compare_classes(groups: Sequence[RunGroup]) -> list[ClassDifference]:
    """IoU per class of the first two experiments, the largest difference first.

    Args:
        groups: Two experiments or more; empty where one of the first two has no table of classes.
    """
    if len(groups) < 2:
        return []
    tables = [[_read_classes(folder) for folder in group.folders] for group in groups[:2]]
    if not all(any(tables_of) for tables_of in tables):
        return []
    names = dict.fromkeys(name for tables_of in tables for table in tables_of for name in table)
    rows = [_compare_class(name, tables) for name in names]
    return sorted(rows, key=lambda row: -abs(row.difference.value) if row.difference else 0.0)


def _compare_class(name: str, tables: Sequence[Sequence[Mapping[str, float]]]) -> ClassDifference:
    first, second = ([table[name] for table in side if name in table] for side in tables)
    difference = compare_seeds(first, second) if first and second else None
    means = [summarize(side).mean if side else None for side in (first, second)]
    return ClassDifference(name, means[0], means[1], difference)


def _read_classes(folder: Path) -> dict[str, float]:
    """Class -> IoU in percent, of the last scored split; empty where there is no table."""
    rows: list[dict[str, Any]] = read_json(folder / "result.json").get("classes", [])
    if not rows:
        tables = sorted((folder / "journal" / "files" / "tables" / "val_classes").glob("*"))
        for path in tables[-1:]:
            with path.open(newline="") as lines:
                rows = json.load(lines) if path.suffix == ".json" else list(csv.DictReader(lines))
    return {row["class"]: float(row["IoU"]) for row in rows if row.get("IoU") not in (None, "")}
