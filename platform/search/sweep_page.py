"""The report of a sweep: one HTML page that needs no other file."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.inspection.html_page import render_page
from ...model.accounting.energy import PAPER_RULE
from ..config.command_lines import command_line
from ..evaluation.baselines import known_baselines
from ..evaluation.number_text import round_metric
from ..figures.charts import draw_compared_curves
from ..figures.search_charts import draw_importance_bars
from ..tracking.journal import file_of
from ..tracking.metric_table import is_of_earlier_rule
from .marginal_effects import (
    MarginalEffect,
    measure_marginal_effects,
    rank_effects,
    why_no_importance,
)
from .study.failure_cause import describe_cause, failure_cause
from .study.replication import Replication
from .study.trial_records import TrialRecord
from .sweep_figures import draw_front, label_trial
from .sweep_file.plan import SweepPlan
from .sweep_groups import REFERENCE, measure_groups
from .sweep_groups_page import tabulate_groups
from .sweep_standing import (
    best_trial,
    front_trials,
    is_degenerate_trial,
    learned_results,
    signed_values,
)
from .sweep_verdict import write_verdict
from .trial_cost import describe_spent

_TEMPLATE = Path(__file__).with_name("sweep_page.html.j2")
_PICTURES = ("figures/contact_sheet.png", "figures/small/contact_sheet.png", "figures/strip.png")
_DRAWN_CURVES = 12


class Page(NamedTuple):
    """What a sweep's report is made of.

    Attributes:
        plan: The sweep.
        records: Its trials by number.
        folder: The sweep's folder.
        shares: Objective -> dotted key -> estimated importance; empty where none was estimated.
        spans: Ends of their 95 % intervals, likewise.
        missing: Why there is no best trial; empty where there is one.
    """

    plan: SweepPlan
    records: Mapping[int, TrialRecord]
    folder: Path
    shares: Mapping[str, Mapping[str, float]]
    spans: Mapping[str, Mapping[str, tuple[float, float]]]
    missing: str


def render_sweep(page: Page) -> str:
    """Render the report of a sweep."""
    plan, records = page.plan, page.records
    results = learned_results(records)
    best = best_trial(plan, records)
    groups = measure_groups(plan, records)
    base = plan.base.config
    return render_page(
        _TEMPLATE,
        title=f"Sweep {page.folder.name}",
        verdict=write_verdict(plan, dict(records)) if results else [],
        missing=page.missing,
        facts=list(_list_facts(page)),
        front=draw_front(plan, records) if len(plan.recipe.objectives) > 1 else None,
        head=_head(plan),
        groups=list(tabulate_groups(plan, groups)) if groups and groups.groups else [],
        reference=REFERENCE,
        trials=list(_list_trials(page)),
        effects=list(_list_effects(page)) if results else [],
        curves=_draw_curves(page),
        best=None if best is None else _describe_best(page, best),
        failures=list(_list_failures(records)),
        energy=_describe_energy(records, base.trainer.energy_images),
        lines=list(list_commands(plan, page.folder, count_configurations(records), best)),
    )


def _describe_energy(records: Mapping[int, TrialRecord], images: int) -> str:
    """Which rule the sweep's energies are of."""
    measured = (metrics for item in records.values() for metrics in item.history.values())
    counted = "operations of every product that the spikes cause"
    if any(map(is_of_earlier_rule, measured)):
        counted = "MACs x rate of convolutions and linear layers (the earlier rule)"
    return (
        f"Estimated, not measured: {counted}, {PAPER_RULE.accumulate} pJ for an accumulate and "
        f"{PAPER_RULE.mac} pJ for a product of real values (45 nm, 32-bit; docs/energy.md), as the "
        f"mean over {images} validation images."
    )


def _list_facts(page: Page) -> Iterator[tuple[str, str]]:
    plan, records = page.plan, page.records
    recipe, base = plan.recipe, plan.base.config
    states = [item.state for item in records.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    degenerate = sum(map(is_degenerate_trial, records.values()))
    yield "data", base.data.path
    yield "base", f"{recipe.base}, {base.trainer.max_steps} steps a trial, base seed {base.seed}"
    yield "sampler", f"{recipe.sampler.name}, seed {recipe.sampler.seed}"
    yield "pruner", recipe.pruner.rule
    yield "trials", f"{counts}{f', {degenerate} degenerate' if degenerate else ''}"
    if recipe.replicates is not None:
        chosen = recipe.replicates.best
        of_which = "each configuration"
        if chosen is not None:
            of_which = (
                f"each of {chosen} configurations chosen by their first training, which is not "
                "counted, and for the first point"
            )
        yield "seeds", f"{recipe.replicates.seeds} for {of_which}"
    yield "cost", describe_spent(plan, records.values())
    if recipe.constraints:
        yield "constraints", ", ".join(map(str, recipe.constraints))


def _head(plan: SweepPlan) -> list[str]:
    keys = [key.rpartition(".")[2] for key in plan.recipe.space.dimensions]
    metrics = [objective.metric for objective in plan.recipe.objectives]
    repeated = [] if plan.recipe.replicates is None else ["configuration", "seed"]
    return ["trial", *repeated, *keys, *metrics, "baselines", "state", "seconds"]


def _list_trials(page: Page) -> Iterator[dict[str, Any]]:
    """Rows of the table: results by the first objective, then what has no result."""
    plan, records = page.plan, page.records
    front = {item.group for item in front_trials(plan, records)}
    repeated = plan.recipe.replicates is not None

    def rank(item: TrialRecord) -> tuple[bool, float, int]:
        first = signed_values(plan, item)[0] if item.values else 0.0
        return not item.values, first, item.number

    for item in sorted(records.values(), key=rank):
        last = item.history.get(item.step, {})
        points = [item.point.get(key, "-") for key in plan.recipe.space.dimensions]
        values = [
            (round_metric(o.metric, last.get(o.metric)), last.get(o.metric))
            for o in plan.recipe.objectives
        ]
        known = known_baselines(last, "val")
        state = item.state + (", degenerate" if is_degenerate_trial(item) else "")
        state += f", breaks {'; '.join(item.violations)}" if item.violations else ""
        state += f": {item.reason}" if item.state not in ("COMPLETE", "RUNNING") else ""
        cells = [
            (str(item.number), item.number),
            *(((str(item.group), ""), (str(item.point["seed"]), "")) if repeated else ()),
            *((f"{v:.3g}" if isinstance(v, float) else str(v), v) for v in points),
            *values,
            (", ".join(f"{name} {value:.1f}" for name, value in known.items()) or "-", ""),
            (state, ""),
            (f"{item.seconds:.0f}", item.seconds),
        ]
        yield {"cells": cells, "front": bool(item.values) and item.group in front}


def _list_effects(page: Page) -> Iterator[dict[str, Any]]:
    objectives = page.plan.recipe.objectives
    completed = sum(item.state == "COMPLETE" for item in page.records.values())
    table = measure_marginal_effects(
        page.records, list(page.plan.recipe.space.dimensions), objectives
    )
    for objective in objectives:
        metric = objective.metric
        effects = rank_effects(table, metric)
        shares = page.shares.get(metric, {})
        why = why_no_importance(shares, effects, completed)
        chart = None
        if shares and not why:
            chart = draw_importance_bars({metric: shares}, page.spans)
        rows = [_describe_effect(metric, item) for item in effects]
        yield {"metric": metric, "rows": rows, "why": why, "chart": chart}


def _describe_effect(metric: str, effect: MarginalEffect) -> tuple[str, list[str], str]:
    """Parameter, mean with half of its interval at each value, and range of the means."""
    texts = []
    for row in effect.rows:
        mean, low, high = row[metric], row[f"{metric} low"], row[f"{metric} high"]
        half_width = None if low is None else (high - low) / 2
        value = f"{row['value']:.3g}" if isinstance(row["value"], float) else row["value"]
        count = row["configurations"]
        texts.append(f"{value}: {round_metric(metric, mean, half_width)} ({count})")
    return effect.key, texts, round_metric(metric, effect.effect)


def _draw_curves(page: Page) -> bytes | None:
    """Each objective over steps, of the best trials; None where each was evaluated once."""
    shown = [item for item in page.records.values() if len(item.history) > 1]
    if not shown:
        return None
    plan = page.plan
    first = plan.recipe.objectives[0]
    worst = float("inf")

    def rank(item: TrialRecord) -> float:
        return min((first.sign * m[first.metric] for m in item.history.values()), default=worst)

    chosen = sorted(shown, key=rank)[:_DRAWN_CURVES]
    return draw_compared_curves(
        {
            objective.metric: {
                f"{label_trial(plan, item)} #{item.number}": [
                    (step, metrics[objective.metric]) for step, metrics in item.history.items()
                ]
                for item in chosen
            }
            for objective in plan.recipe.objectives
        }
    )


def _describe_best(page: Page, best: TrialRecord) -> dict[str, Any]:
    """Pictures and per-class table of the trial with the highest first objective."""
    journal = page.folder / "trials" / str(best.number) / "journal"
    files = [file_of(journal, path) for path in _PICTURES]
    files += sorted((journal / "files" / "pictures").rglob("*.png"))[-1:]
    picture = next((file.read_bytes() for file in files if file.is_file()), None)
    return {
        "name": f"trial {best.number}, {label_trial(page.plan, best)}",
        "weights": str(page.folder / "trials" / str(best.number) / "checkpoints"),
        "picture": picture,
        "classes": _read_classes(journal, best.step),
    }


def _read_classes(journal: Path, step: int) -> list[tuple[str, str, str]]:
    """Class, IoU and accuracy at a step, the lowest IoU first; empty where there is no table."""
    for suffix in ("json", "csv"):
        path = journal / "files" / "tables" / "val_classes" / f"{step:08d}.{suffix}"
        if path.is_file():
            rows = _read_rows(path)
            rows.sort(key=lambda row: (row["IoU"] is None, row["IoU"]))
            return [
                (str(row["class"]), _percent(row.get("IoU")), _percent(row.get("Acc")))
                for row in rows
            ]
    return []


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    import csv

    with path.open(newline="") as lines:
        return [
            {k: v if k == "class" else (float(v) if v else None) for k, v in row.items()}
            for row in csv.DictReader(lines)
        ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _list_failures(records: Mapping[int, TrialRecord]) -> Iterator[tuple[str, ...]]:
    for number in sorted(records):
        item = records[number]
        if item.state == "FAIL":
            cause = describe_cause(failure_cause(item.reason))
            yield str(number), cause, item.reason, str(item.attempts)


def count_configurations(records: Mapping[int, TrialRecord]) -> int:
    """Trials that were begun, further seeds of one not counted."""
    return sum(item.original is None for item in records.values())


def list_commands(
    plan: SweepPlan, folder: Path, configurations: int, best: TrialRecord | None
) -> Iterator[tuple[str, str]]:
    """What to do with a sweep, and the lines that do it.

    Args:
        plan: The sweep.
        folder: Its folder.
        configurations: Trials that were begun, further seeds of one not counted.
        best: The best trial; None where there is none.
    """
    name, storage = folder.name, str(folder.parent.absolute())

    def line(*words: str) -> str:
        return command_line(*words, "--storage", storage)

    if plan.request is not None:
        request = plan.request
        yield "repeat the sweep", line("sweep", request.recipe, *request.overrides)
    few = plan.recipe.space.few_points()
    more = 2 * configurations if few is None else min(2 * configurations, len(few))
    if more > configurations and plan.recipe.sampler.name != "listed":
        yield "add trials", line("sweep", "--resume", name, "--trials", str(more))
    if best is not None:
        seeds = [best.point.get("seed", plan.base.config.seed)]
        what = "train the point with the highest score whole"
        if plan.recipe.replicates is not None:
            seeds += Replication(
                plan.recipe.replicates, plan.recipe.objectives, seed=plan.base.config.seed
            ).seeds
            what = "train the configuration with the best mean whole"
        yield (
            what,
            line("train", str(folder.absolute() / "best.yaml")),
        )
        yield (
            "the same with another seed",
            line("train", str(folder.absolute() / "best.yaml"), f"seed={max(seeds) + 1}"),
        )
        yield "score its weights", line("evaluate", f"{name}/{best.number}")
    yield "its table in other forms", line("table", name, "--format", "csv")
    yield "compare in the browser", line("ui")
