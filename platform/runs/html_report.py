"""One offline HTML page over one or more runs: curves, pictures, tables, provenance."""

import dataclasses
import json
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.inspection.html_page import render_page
from ...datasets.packed.files import write_file
from ..config.recipes import flat, load_resolved
from ..evaluation.number_text import round_difference, round_metric
from ..figures import charts
from ..tracking.metric_table import metric_label
from ..tracking.run_reader import TrackedRun, read_run
from ..tracking.tracking_uri import tracking_uri
from .compared_rows import draw_compared_rows
from .run_table import RunGroup, group_runs, make_table
from .runs_verdict import compare_classes, write_verdict

_log = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("html_report.html.j2")
_SHOWN_TAGS = (
    *("recipe", "seed", "T", "D", "normalization", "world_size", "attempt"),
    *("git_sha", "dirty", "code_diff_digest", "code_digest", "config_digest", "data_digest"),
    *("sweep", "trial", "state", "reason", "degenerate", "replay_of", "ray_job_id"),
)
_DRAWN_RUNS = 4
_FIGURES = (
    *("figures/confusion.png", "figures/firing.png", "figures/energy.png"),
    "figures/first_step.png",
)
_TEXTS = {
    "Resolved configuration": "config.yaml",
    "Provenance": "provenance.json",
    "Difference from the commit": "code.diff",
}


class Rounded(NamedTuple):
    """A number as it is shown, and with every digit."""

    text: str
    value: float


class _Table(NamedTuple):
    """A table of a run's artifacts, or why there is none."""

    path: str
    head: list[str]
    rows: list[list[Any]]
    error: str = ""


def write_report(
    run_ids: Sequence[str], *, storage: Path, output: Path, words: Sequence[str] = ()
) -> Path:
    """Write the page of some runs.

    Args:
        run_ids: Ids of the runs in MLflow.
        words: What commands call them, for the verdict at the top and pictures side by side; none
            where the runs have no folders here.
        storage: Folder of all runs, which has the database where no tracking URI is set.
        output: The HTML file; replaced whole.

    Raises:
        ValueError: Where a run is not known, or none is given.
        OSError: Where the file cannot be written.
    """
    if not run_ids:
        raise ValueError("a report needs at least one run id")
    uri = tracking_uri(storage)
    runs = [read_run(uri, run_id) for run_id in dict.fromkeys(run_ids)]
    output.parent.mkdir(parents=True, exist_ok=True)
    groups = group_runs(words, storage) if words else []
    write_file(output, render_report(_with_unique_names(runs), groups))
    return output


def render_report(runs: Sequence[TrackedRun], groups: Sequence[RunGroup] = ()) -> str:
    """Render the page of some runs, which needs no other file.

    Args:
        runs: The runs, in the order of the page's columns.
        groups: Runs of one experiment together, for the verdict; empty for none.
    """
    table = make_table(groups) if groups else None
    picture, why = _draw_rows(groups)
    return render_page(
        _TEMPLATE,
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared",
        verdict=write_verdict(groups) if groups else [],
        table=table,
        compared=picture,
        not_compared=why,
        classes=_list_classes(groups),
        groups=[group.label for group in groups[:2]],
        names=[run.name for run in runs],
        scores=_list_scores(runs),
        parameters=_list_differing_parameters(runs),
        curves=_draw_curves(runs),
        runs=[_describe_run(run) for run in runs],
    )


def _draw_rows(groups: Sequence[RunGroup]) -> tuple[bytes | None, str]:
    """Pictures of the same rows by the first run of each experiment, or why there are none."""
    if len(groups) < 2:
        return None, ""
    try:
        return draw_compared_rows([(g.words[0], g.folders[0]) for g in groups[:_DRAWN_RUNS]]), ""
    except (ValueError, OSError, RuntimeError) as error:
        return None, f"No pictures of the same rows side by side: {error}"


def _list_classes(groups: Sequence[RunGroup]) -> list[tuple[str, ...]]:
    """Class, IoU in the first two experiments, difference, and what it is worth."""
    rows = []
    for name, first, second, difference in compare_classes(groups):
        worth = "-"
        if difference is not None:
            worth = "more than seeds" if difference.beyond_seeds else "within the spread of seeds"
            worth = worth if difference.known else "one seed: cannot be told"
        values = (round_metric("val/mIoU", value) for value in (first, second))
        shown = "-" if difference is None else round_difference("val/mIoU", difference.value)
        rows.append((name, *values, shown, worth))
    return rows


def _with_unique_names(runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """Runs of one name get a part of their id into it: columns and curves are named after runs."""
    names = [run.name for run in runs]
    return [
        dataclasses.replace(run, name=f"{run.name} ({run.run_id[:8]})")
        if names.count(run.name) > 1
        else run
        for run in runs
    ]


def _list_scores(runs: Sequence[TrackedRun]) -> list[list[Any]]:
    values = [run.last() for run in runs]
    names = sorted({n for item in values for n in item if not n.startswith("system/")})
    return [
        [metric_label(name), *(_rounded(name, item.get(name)) for item in values)] for name in names
    ]


def _rounded(name: str, value: float | None) -> Rounded | None:
    return None if value is None else Rounded(round_metric(name, value), value)


def _list_differing_parameters(runs: Sequence[TrackedRun]) -> list[list[Any]]:
    values = [_read_parameters(run) for run in runs]
    names = sorted({name for item in values for name in item})
    rows = [[name, *(item.get(name) for item in values)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _read_parameters(run: TrackedRun) -> dict[str, str]:
    """Every field of a run's configuration; MLflow's parameters are few, and those of the start."""
    text = run.read("config.yaml") or b""
    try:
        fields = flat(load_resolved(text.decode()).config)
    except ValueError:
        fields = {}
    return {**{key: str(value) for key, value in fields.items()}, **run.params}


def _draw_curves(runs: Sequence[TrackedRun]) -> bytes:
    names = sorted(
        {
            n
            for run in runs
            for n in run.series
            if not n.startswith(("system/", "best")) and "/baseline_" not in n
        }
    )
    return charts.draw_compared_curves(
        {name: {run.name: run.series.get(name, []) for run in runs} for name in names}
    )


def _describe_run(run: TrackedRun) -> dict[str, Any]:
    """What the template shows of one run."""
    note = run.tags.get("mlflow.note.content", "")
    pictures = [_find_newest_picture(run), *((path, run.read(path)) for path in _FIGURES)]
    texts = [(title, run.read(path)) for title, path in _TEXTS.items()]
    return {
        "name": run.name,
        "run_id": run.run_id,
        "status": run.status,
        "note": "\n".join(
            re.sub(r"\*\*|`", "", line)
            for line in note.splitlines()
            if line.strip("`\n ") and not line.startswith("![")
        ),
        "tags": [[name, run.tags[name]] for name in _SHOWN_TAGS if name in run.tags],
        "pictures": [(title, png) for title, png in pictures if png is not None],
        "tables": list(_read_tables(run)),
        "texts": [(title, text.decode(errors="replace")) for title, text in texts if text],
    }


def _find_newest_picture(run: TrackedRun) -> tuple[str, bytes | None]:
    """The contact sheet of the best checkpoint, else the newest one."""
    # Others may have put pictures there under names of their own.
    named = (re.fullmatch(r"images/(.+?)\+step\+(\d+)\+.*\.png", path) for path in run.artifacts)
    sheets = [match for match in named if match is not None]
    if not sheets:
        return "", None
    newest = max(sheets, key=lambda match: ("best" in match[1], int(match[2])))
    return f"{newest[1].replace('~', '/')}, step {newest[2]}", run.read(newest[0])


def _read_tables(run: TrackedRun) -> Iterable[_Table]:
    for title, folder in (("classes", "val_classes"), ("layers", "layers")):
        paths = sorted(p for p in run.artifacts if p.startswith(f"tables/{folder}/"))
        final = [p for p in run.artifacts if p == f"tables/test_{title}.json"]
        for path in [*final, *paths[-1:]]:
            try:
                rows = json.loads(run.read(path) or b"[]")
            except ValueError as error:
                _log.warning("run %s (%s): %s: no table: %s", run.run_id, run.name, path, error)
                yield _Table(path, [], [], str(error))
                continue
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                head = list(rows[0])
                yield _Table(path, head, [[row.get(name) for name in head] for row in rows])
