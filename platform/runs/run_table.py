"""A table of runs in which those that differ in nothing but the seed are one row."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.errors import ConfigError, nearest
from ..config.field_kinds import find_keys
from ..config.recipes import ADDED
from ..config.schema import ExperimentConfig
from ..config.yaml_source import parse_value
from ..evaluation.number_text import round_metric
from ..evaluation.seed_statistics import find_best, summarize
from ..tracking.metric_table import METRICS
from .find_run import SWEEP_PLAN, FoundRun, find_run, trials_of
from .list_runs import read_metrics
from .run_state import run_state

# What decides no result, or is the seed itself.
_NOT_COMPARED = ("seed", "name", "tracking", "trainer.test", "trainer.device", "data.path")
_SHORT = {
    "T": "model.neuron.timesteps",
    "D": "model.neuron.levels",
    "normalization": "model.neuron.normalization",
}
_METRICS = ("val/mIoU", "val/baseline_position", "test/mIoU", "energy/mJ", "snn/firing_rate")
_MOST_DIFFERING = 6


@dataclass(frozen=True)
class RunGroup:
    """Runs of one experiment with different seeds.

    Attributes:
        words: What commands call each run.
        folders: Their folders.
        fields: Dotted key -> value, of the first run.
        metrics: Name -> one value a run that has it.
        states: State of each run.
        left_out: Words of trainings by which a sweep chose this configuration, not among the runs.
    """

    words: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The first run's word, and how many follow."""
        more = len(self.words) - 1
        return self.words[0] if not more else f"{self.words[0]} and {more} more"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What it shows.
        best: Whether it is the best of its column by more than the spread of seeds.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class RunTable:
    """Columns and rows of a table.

    Attributes:
        head: Names of the columns.
        rows: One cell a column.
        groups: What stands behind each row.
    """

    head: list[str]
    rows: list[list[Cell]]
    groups: list[RunGroup]


def group_runs(words: Sequence[str], storage: Path) -> list[RunGroup]:
    """Runs of one experiment together, in the order in which they were named.

    Args:
        words: As `find_run` takes them; a sweep stands for all its trials.
        storage: Folder of all runs.

    Raises:
        ConfigError: As `find_run`.
    """
    found: dict[Path, tuple[FoundRun, int | None]] = {}
    for word in words:
        run = find_run(word, storage, kinds=("run", "trial", "sweep"))
        if run.kind == "sweep":
            seed = _read_choosing_seed(run.folder)
            for item in trials_of(run.folder):
                found.setdefault(item.folder, (item, seed))
        else:
            found.setdefault(run.folder, (run, None))
    alike: dict[str, list[tuple[FoundRun, dict[str, Any], bool]]] = {}
    for run, seed in found.values():
        fields = read_fields(run.folder)
        compared = {key: value for key, value in fields.items() if not _is_left_out(key)}
        data = Path(str(fields.get("data.path", ""))).name
        text = json.dumps([data, compared], sort_keys=True) if fields else run.word
        chose = seed is not None and fields.get("seed") == seed
        alike.setdefault(text, []).append((run, fields, chose))
    return [_make_group(members) for members in alike.values()]


def _make_group(members: Sequence[tuple[FoundRun, dict[str, Any], bool]]) -> RunGroup:
    """One row of runs, their fields, and whether a configuration was chosen by each.

    The training by which a sweep chose what it repeats says too much good of it, and is left out
    where there are others.
    """
    fresh = [item for item in members if not item[2]] or members
    left_out = [item[0].word for item in members if item not in fresh]
    group = RunGroup(fields=fresh[0][1], left_out=left_out)
    for run, _, _ in fresh:
        group.words.append(run.word)
        group.folders.append(run.folder)
        group.states.append(run_state(run))
        for name, value in read_metrics(run).items():
            group.metrics.setdefault(name, []).append(value)
    return group


def _read_choosing_seed(sweep: Path) -> int | None:
    """Seed of the trainings by which a sweep chose what it repeats; None where it chose nothing."""
    try:
        plan = json.loads((sweep / SWEEP_PLAN).read_text())
        replicates = plan["recipe"].get("replicates") or {}
        base = parse_value(plan["base"])
    except (OSError, ValueError, KeyError):
        return None
    chosen = replicates.get("best") is not None and isinstance(base, dict)
    return base.get("seed") if chosen else None


def read_fields(folder: Path) -> dict[str, Any]:
    """Dotted key -> value of a run's configuration; empty where it cannot be read.

    A field that came later has the value under which it changes nothing: runs of two versions are
    not told apart by it.
    """
    try:
        content = parse_value((folder / "config.yaml").read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    fields = dict(_flatten("", content))
    for key, unchanged in ADDED.items():
        if not any(f"{name}.".startswith(f"{key}.") for name in fields):
            fields[key] = unchanged
    return fields


def _flatten(prefix: str, node: Mapping[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in node.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        pairs += _flatten(name, value) if isinstance(value, dict) and value else [(name, value)]
    return pairs


def _is_left_out(key: str) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in _NOT_COMPARED)


def differing_fields(groups: Sequence[RunGroup]) -> list[str]:
    """Keys of the fields in which experiments differ."""
    keys = dict.fromkeys(key for group in groups for key in group.fields)
    return [
        key
        for key in keys
        if not _is_left_out(key)
        and len({json.dumps(group.fields.get(key)) for group in groups}) > 1
    ]


def make_table(groups: Sequence[RunGroup], columns: Sequence[str] = ()) -> RunTable:
    """Lay groups out as a table, the best by the first metric first.

    Args:
        groups: As `group_runs` returns them.
        columns: Metrics, fields (or the ends of their keys), `T`, `D`, `normalization`, `state`;
            empty for neuron, what differs, and the usual metrics.

    Raises:
        ConfigError: Where a column is neither; names the nearest.
    """
    chosen = [_resolve_column(name, groups) for name in columns] or _default_columns(groups)
    metrics = [name for name, _ in chosen if _is_metric(name, groups)]
    ordered = sorted(groups, key=lambda item: _rank(item, metrics[0])) if metrics else list(groups)
    best = {
        name: find_best([g.metrics.get(name, []) for g in ordered], minimize=_minimize(name))
        for name in metrics
        if METRICS.get(name) is None or METRICS[name].better is not None
    }
    rows = [
        [
            Cell(group.label),
            Cell(str(len(group.words))),
            *(_make_cell(group, key, best.get(key) == index) for key, _ in chosen),
        ]
        for index, group in enumerate(ordered)
    ]
    return RunTable(["run", "seeds", *(title for _, title in chosen)], rows, ordered)


def _default_columns(groups: Sequence[RunGroup]) -> list[tuple[str, str]]:
    chosen = [(key, title) for title, key in _SHORT.items()]
    others = [key for key in differing_fields(groups) if key not in _SHORT.values()]
    chosen += [(key, key.rpartition(".")[2]) for key in others[:_MOST_DIFFERING]]
    chosen += [(name, name) for name in _METRICS if any(name in g.metrics for g in groups)]
    if len({state for group in groups for state in group.states}) > 1:
        chosen.append(("state", "state"))
    return chosen


def _resolve_column(name: str, groups: Sequence[RunGroup]) -> tuple[str, str]:
    if name in _SHORT or name == "state":
        return _SHORT.get(name, name), name
    if _is_metric(name, groups):
        return name, name
    keys = find_keys(ExperimentConfig, name)
    if len(keys) == 1:
        return keys[0], name
    if keys:
        raise ConfigError(f"--columns: {name}: several fields end so: {', '.join(keys)}")
    known = sorted({metric for group in groups for metric in group.metrics})
    near = nearest(name, [*known, *_SHORT]) or f"; metrics: {', '.join(known)}"
    raise ConfigError(f"--columns: {name}: neither a metric nor a field{near}")


def _is_metric(name: str, groups: Sequence[RunGroup]) -> bool:
    return name in METRICS or any(name in group.metrics for group in groups)


def _minimize(name: str) -> bool:
    return name in METRICS and METRICS[name].better == "minimize"


def _rank(group: RunGroup, name: str) -> float:
    values = group.metrics.get(name)
    if not values:
        return float("inf")
    return summarize(values).mean * (1 if _minimize(name) else -1)


def _make_cell(group: RunGroup, key: str, best: bool) -> Cell:
    if key == "state":
        return Cell(", ".join(dict.fromkeys(group.states)))
    if key in group.fields:
        value = group.fields[key]
        return Cell(f"{value:.3g}" if isinstance(value, float) else _as_text(value))
    values = group.metrics.get(key)
    if not values:
        return Cell("-")
    summary = summarize(values)
    return Cell(round_metric(key, summary.mean, summary.half_width), best)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
