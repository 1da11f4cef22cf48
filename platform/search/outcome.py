"""What a sweep leaves: a table of all trials, the front, figures, and the best one as a recipe."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import figures
from ..config import dump
from .pareto import front
from .recipe import SweepPlan
from .study import Keeper
from .tracked import SweepRecord
from .verdict import TrialRecord


def finish_sweep(
    plan: SweepPlan, keeper: Keeper, folder: Path, record: SweepRecord
) -> list[TrialRecord]:
    """Write results, figures and the best recipe; record them in the sweep's run.

    Args:
        plan: The sweep.
        keeper: Its keeper, every trial ended.
        folder: The sweep's folder.
        record: The sweep's run.

    Returns:
        Trials that no other beats in every objective: finished, and within all constraints.
    """
    journal = record.journal
    done = [r for r in keeper.records.values() if r.state == "COMPLETE" and not r.violations]
    vectors = [
        tuple(o.sign * v for o, v in zip(plan.recipe.objectives, r.values, strict=True))
        for r in done
    ]
    best_of = [done[index] for index in front(vectors)]
    rows = [_row(plan, item, item in best_of) for _, item in sorted(keeper.records.items())]
    (folder / "results.json").write_text(json.dumps(rows, indent=1))
    (folder / "results.csv").write_text(_csv(rows))
    journal.text("results.json", json.dumps(rows, indent=1))
    journal.text("results.csv", _csv(rows))
    if not done:
        return []
    sign = plan.recipe.objectives[0].sign
    best = min(done, key=lambda r: (sign * r.values[0], r.number))
    experiment = plan.experiment(best.point)
    (folder / "best.yaml").write_text(dump(experiment.config))
    journal.text("best.yaml", dump(experiment.config))
    journal.params({f"best.{key}": str(value) for key, value in best.point.items()})
    names = [objective.metric for objective in plan.recipe.objectives]
    journal.metrics(
        len(rows),
        {f"best/{n.replace('/', '_')}": v for n, v in zip(names, best.values, strict=True)},
    )
    (folder / "figures").mkdir(exist_ok=True)
    for name, content in _pictures(plan, done, best_of, names).items():
        (folder / "figures" / f"{name}.png").write_bytes(content)
        journal.image(name, len(rows), content)
    return best_of


def _pictures(
    plan: SweepPlan, done: list[TrialRecord], best_of: list[TrialRecord], names: list[str]
) -> dict[str, bytes]:
    keys = list(plan.recipe.space.dimensions)
    lines = [[*(_shown(r.point.get(key, "-")) for key in keys), *r.values] for r in done]
    titles = [*(key.rpartition(".")[2] for key in keys), *names]
    pictures = {"parallel": figures.parallel_coordinates(titles, lines, colour_by=len(keys))}
    if len(names) > 1:
        pictures["front"] = figures.pareto(
            [(r.values[1], r.values[0]) for r in done],
            [(r.values[1], r.values[0]) for r in best_of],
            (names[1], names[0]),
            [f"trial {r.number}" for r in sorted(best_of, key=lambda r: r.values[1])],
        )
    return pictures


def _shown(value: Any) -> float | str:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


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
        "attempts": item.attempts,
        "seconds": round(item.seconds, 1),
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, keys, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
