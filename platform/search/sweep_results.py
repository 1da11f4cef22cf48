"""Results of a sweep: a table of all trials, the front, figures, and the best one as a recipe."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.packed.files import write_file
from ..checkpoint.run_folder import find_checkpoint
from ..checkpoint.trained_model import leave_model
from ..config.recipes import dump, override
from ..config.stored_json import read_stored, to_json
from ..evaluation.baselines import describe_baselines
from ..figures.strip import fit_page
from ..tracking.journal import Journal, append_model, file_of
from ..tracking.journal_lines import read_records
from ..tracking.pages.run_page import (
    NOTE,
    SHEET,
    SMALL,
    STRIP,
    describe_scores,
    write_note,
)
from ..train.preparation import open_data
from .marginal_effects import choose_importances
from .stored_sweep import read_sweep
from .study.failure_cause import failure_cause
from .study.study import Keeper
from .study.trial_records import TrialRecord
from .sweep_figures import draw_sweep
from .sweep_file.plan import SweepPlan
from .sweep_groups import Groups, describe_leader
from .sweep_page import Page, count_configurations, list_commands, render_sweep
from .sweep_standing import (
    best_trial,
    front_trials,
    is_degenerate_trial,
    learned_results,
    results_of,
    score_sweep,
    signed_values,
)
from .sweep_tables import analyse_sweep, to_csv
from .sweep_tracking import SweepRecord
from .sweep_verdict import describe_lead, list_untried
from .trial_cost import describe_spent, devices_of_a_trial, spent_metrics

_log = logging.getLogger(__name__)

REPORT = "report.html"
"""The sweep's report, in its folder and among the artifacts of its own run."""


def finish_sweep(plan: SweepPlan, keeper: Keeper, folder: Path, record: SweepRecord) -> None:
    """Write results, figures and the best recipe; record them in the sweep's run.

    Args:
        plan: The sweep.
        keeper: Its keeper, every trial ended.
        folder: The sweep's folder.
        record: The sweep's run.
    """
    journal = record.journal
    best_of = front_trials(plan, keeper.records)
    numbers = {item.number for item in best_of}
    rows = [_row(plan, r, r.number in numbers) for _, r in sorted(keeper.records.items())]
    analysis = analyse_sweep(plan, keeper)
    best = best_trial(plan, keeper.records)
    journal.metrics(keeper.finished, spent_metrics(plan, keeper.records.values()))
    if analysis.groups is not None and best is not None:
        journal.tags({"best": describe_leader(plan, analysis.groups)})
        # Who names the best trial takes this one, and not the one with the luckiest seed.
        next(row for row in rows if row["trial"] == best.number)["leader"] = True
    front_rows = _list_front(plan, keeper.records, analysis.groups)
    completed = sum(item.state == "COMPLETE" for item in keeper.records.values())
    shares = analysis.shares
    agreed = choose_importances(analysis.effects, shares, completed)
    files = {
        "results.json": to_json(rows),
        "results.csv": to_csv(rows, rows),
        "front.json": to_json(front_rows),
        "front.csv": to_csv(front_rows, front_rows or rows),
        **analysis.files,
    }
    if best is not None:
        # What a sweep does without, a single training has.
        whole = {"trainer.test": True, "tracking.first_step": None}
        files["best.yaml"] = dump(override(plan.experiment(best.point), whole, "sweep").config)
        # Tags, since parameters keep their first value and a sweep may be extended.
        journal.tags({"best_trial": str(best.number), "best_point": json.dumps(best.point)})
        names = [objective.metric for objective in plan.recipe.objectives]
        values = dict(zip(names, score_sweep(plan, keeper.records), strict=True))
        journal.metrics(
            keeper.finished,
            {**{f"best/{name.replace('/', '_')}": v for name, v in values.items()}, **values},
        )
    for name, text in files.items():
        write_file(folder / name, text)
        journal.text(name, text)
    drawn = draw_sweep(plan, keeper.records, agreed, analysis.spans)
    for name, content in drawn.items():
        (folder / "figures").mkdir(exist_ok=True)
        write_file(folder / "figures" / f"{name}.png", content)
        journal.artifact(f"figures/{name}.png", folder / "figures" / f"{name}.png")
    why = why_no_result(keeper.records)
    page = render_sweep(Page(plan, keeper.records, folder, shares, analysis.spans, why))
    write_file(folder / REPORT, page)
    journal.text(REPORT, page)
    if best is not None:
        _leave_model(plan, best, folder / "trials" / str(best.number))
    record.record_ranks(rank_results(plan, keeper.records))
    shown = [f"{SMALL}/{name}.png" for name in drawn]
    for name, content in drawn.items():
        journal.picture(f"{SMALL}/{name}.png", fit_page(content))
    sentence = ""
    if best is not None:
        shown[:0] = _copy_pictures(journal, folder / "trials" / str(best.number) / "journal")
        single = _describe_best(plan, best, keeper.records)
        sentence = analysis.describe_leader(plan) or single
    described = describe_sweep(plan, rows, front_rows, why)
    lines = _write_commands(plan, keeper, folder, best)
    untried = " ".join(list_untried(plan, results_of(keeper.records)))
    spent = describe_spent(plan, keeper.records.values())
    note = write_note(
        sentence,
        "\n\n".join(
            filter(None, [analysis.describe_groups(plan), described, untried, spent, lines])
        ),
        shown,
    )
    journal.tags({NOTE: note})


def write_sweep_report(folder: Path, output: Path) -> Path:
    """Write the report of a sweep as it stands, from its folder and its study.

    Args:
        folder: The sweep's folder.
        output: The HTML file; replaced whole.

    Raises:
        ConfigError: Where there is no sweep, or its study cannot be read.
    """
    stored = read_sweep(folder)
    path, ends = folder / "importance.json", folder / "importance_intervals.json"
    shares = read_stored(path, dict[str, dict[str, float]]) if path.is_file() else {}
    spans = read_stored(ends, dict[str, dict[str, tuple[float, float]]]) if ends.is_file() else {}
    why = why_no_result(stored.records)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, render_sweep(Page(stored.plan, stored.records, folder, shares, spans, why)))
    return output


def rank_results(
    plan: SweepPlan, records: Mapping[int, TrialRecord]
) -> list[tuple[int, TrialRecord]]:
    """Place and trial of every result by the first objective; equal values share a place."""
    done = sorted(learned_results(records), key=lambda item: signed_values(plan, item))
    values = [signed_values(plan, item)[0] for item in done]
    return [(values.index(value) + 1, item) for value, item in zip(values, done, strict=True)]


def _describe_best(plan: SweepPlan, best: TrialRecord, records: Mapping[int, TrialRecord]) -> str:
    """The highest result's scores, by how much it is ahead, and whether that may be noise."""
    scores = describe_scores(best.history.get(best.step, {}))
    lead = describe_lead(plan, learned_results(records))
    return f"{scores}: {lead}." if scores else f"{lead[0].upper()}{lead[1:]}."


def _write_commands(plan: SweepPlan, keeper: Keeper, folder: Path, best: TrialRecord | None) -> str:
    """Markdown with data, weights and the lines that go on with a sweep."""
    parts = [f"Data: `{plan.base.config.data.path}`."]
    if best is not None:
        weights = folder.absolute() / "trials" / str(best.number) / "checkpoints"
        parts[0] += f" Weights of trial {best.number}: `{weights}`."
    lines = list_commands(plan, folder, count_configurations(keeper.records), best)
    return "\n\n".join([*parts, *(f"{what}:\n\n```\n{line}\n```" for what, line in lines)])


def _leave_model(plan: SweepPlan, best: TrialRecord, trial: Path) -> None:
    """Have the best trial's journal hold its model, once."""
    records = trial / "journal"
    try:
        known = [r for r in read_records(records) if r["kind"] == "model"]
        config = plan.experiment(best.point).config
        checkpoint = find_checkpoint(trial / "checkpoints" / f"step-{best.step:08d}")
        if any(
            r["step"] == checkpoint.step and r["register"] == config.tracking.register
            for r in known
        ):
            return
        append_model(records, leave_model(trial, checkpoint, open_data(config), config))
    except (ValueError, OSError) as error:
        _log.warning("%s: its model is not logged: %s", trial, error)


def _copy_pictures(journal: Journal, trial: Path) -> list[str]:
    """Copy the best trial's strip and contact sheet into the sweep's run; their paths there."""
    copied = []
    for path in (STRIP, f"{SMALL}/{Path(SHEET).name}"):
        if file_of(trial, path).is_file():
            journal.artifact(f"best_trial/{Path(path).name}", file_of(trial, path))
            copied.append(f"best_trial/{Path(path).name}")
    return copied


def why_no_result(records: Mapping[int, TrialRecord]) -> str:
    """Why no trial can be the best one, in one sentence; empty where one can.

    Args:
        records: A sweep's trials by number.
    """
    done = results_of(records)
    if done:
        if not all(map(is_degenerate_trial, done)):
            return ""
        last = done[0].history[done[0].step]
        return (
            f"no best trial: all {len(done)} results are degenerate, no better than an answer that "
            f"ignores the image{describe_baselines(last, 'val')}"
        )
    ordered = [records[number] for number in sorted(records)]
    parts = []
    for state, word in (("FAIL", "failed"), ("PRUNED", "were pruned")):
        ended = [item for item in ordered if item.state == state]
        if ended:
            parts.append(f"{len(ended)} {word} (trial {ended[0].number}: {ended[0].reason})")
    broken = Counter(limit for item in ordered for limit in item.violations if item.values)
    parts += [f"{count} broke {limit}" for limit, count in broken.items()]
    return f"no result: of {len(ordered)} trials {', '.join(parts)}"


def describe_sweep(
    plan: SweepPlan,
    rows: Sequence[Mapping[str, Any]],
    front: Sequence[Mapping[str, Any]],
    missing: str,
) -> str:
    """Describe a sweep for the top of its page in MLflow: states, cost, the front as a table.

    Args:
        plan: The sweep.
        rows: All trials, as in `results.json`.
        front: Those on the front, likewise.
        missing: `why_no_result`, where there is none.
    """
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    broken = sum(bool(row["violations"]) for row in rows if row["state"] == "COMPLETE")
    if broken:
        limits = ", ".join(f"`{limit}`" for limit in plan.recipe.constraints)
        counts += f", {broken} of them finished and broke a constraint ({limits})"
    spent = sum(row["seconds"] for row in rows) * devices_of_a_trial(plan)
    names = [objective.metric for objective in plan.recipe.objectives]
    several = plan.recipe.replicates is not None
    keys = ["configuration" if several else "trial", *plan.recipe.space.dimensions, *names]
    degenerate = sum(bool(row.get("degenerate")) for row in rows if row["state"] == "COMPLETE")
    if degenerate:
        counts += f", {degenerate} finished and degenerate (no better than ignoring the image)"
    lines = [
        f"Sweep `{plan.recipe.name}` over `{plan.recipe.base}`: {counts}; "
        f"{spent:.0f} device-seconds. Its trials are its child runs.",
        "",
    ]
    if missing:
        return "\n".join([*lines, f"{missing[0].upper()}{missing[1:]}."]) + "\n"
    told = " by their means over seeds" if several else ""
    lines += [
        f"Not beaten in {' and '.join(names)} together{told}:",
        "",
        "| " + " | ".join(_head(key, names) for key in keys) + " |",
        "|" + " --- |" * len(keys),
        *("| " + " | ".join(_cell(row.get(key, "")) for key in keys) + " |" for row in front),
        "",
    ]
    return "\n".join(lines) + "\n"


def _head(key: str, metrics: Sequence[str]) -> str:
    """A column's head; of a field the last part of its key, since whole keys leave no room."""
    return key if key in metrics else key.rpartition(".")[2]


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _list_front(
    plan: SweepPlan, records: Mapping[int, TrialRecord], groups: Groups | None
) -> list[dict[str, Any]]:
    """Rows of `front.json`: trials; with replicates configurations, by their means over seeds."""
    if groups is None or not groups.groups:
        return [_row(plan, item, True) for item in front_trials(plan, records)]
    names = [objective.metric for objective in plan.recipe.objectives]
    return [
        {
            "configuration": group.number,
            **group.point,
            **dict(zip(names, [summary.mean for summary in group.summaries], strict=True)),
            "seeds": len(group.seeds),
            "trials": " ".join(map(str, group.trials)),
        }
        for group in groups.groups
        if group.front
    ]


def _row(plan: SweepPlan, item: TrialRecord, on_front: bool) -> dict[str, Any]:
    values = item.values or ("",) * len(plan.recipe.objectives)
    return {
        "trial": item.number,
        "state": item.state,
        **item.point,
        **{o.metric: v for o, v in zip(plan.recipe.objectives, values, strict=True)},
        "front": on_front,
        "step": item.step,
        "reason": item.reason,
        **({"cause": failure_cause(item.reason)} if item.state == "FAIL" else {}),
        "violations": "; ".join(item.violations),
        **({"degenerate": True} if is_degenerate_trial(item) else {}),
        **({} if plan.recipe.replicates is None else {"group": item.group}),
        "attempts": item.attempts,
        "seconds": round(item.seconds, 1),
    }
