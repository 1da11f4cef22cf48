"""One offline HTML page over one or more runs: curves, pictures, tables, provenance."""

import base64
import dataclasses
import html
import json
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...datasets.packed.files import write_file
from ..figures import charts
from ..tracking.metric_table import metric_label
from ..tracking.run_reader import TrackedRun, read_run
from ..tracking.tracking_uri import tracking_uri

_log = logging.getLogger(__name__)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #d0d7de; padding: .25rem .6rem; text-align: left;
  vertical-align: top; }
th { background: #f6f8fa; font-weight: 600; } td.number { text-align: right; }
img { max-width: 100%; border: 1px solid #d0d7de; } pre { background: #f6f8fa; padding: .7rem;
  overflow-x: auto; } summary { cursor: pointer; font-weight: 600; }
.wide { overflow-x: auto; }
"""
_SHOWN_TAGS = (
    *("recipe", "seed", "T", "D", "normalization", "world_size", "attempt"),
    *("git_sha", "dirty", "code_digest", "config_digest", "data_digest"),
    *("sweep", "trial", "state", "reason", "replay_of", "ray_job_id"),
)
_FIGURES = ("figures/confusion.png", "figures/firing.png", "figures/first_step.png")


def write_report(run_ids: Sequence[str], *, storage: Path, output: Path) -> Path:
    """Write the page.

    Args:
        run_ids: Ids of the runs in MLflow.
        storage: Folder of all runs, which has the database where no tracking URI is set.
        output: The HTML file; replaced whole.

    Raises:
        ValueError: Where a run is not known, or none is given.
        OSError: Where the file cannot be written.
    """
    if not run_ids:
        raise ValueError("a report needs at least one run id")
    uri = tracking_uri(storage)
    runs = _told_apart([read_run(uri, run_id) for run_id in dict.fromkeys(run_ids)])
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, report_page(runs))
    return output


def report_page(runs: Sequence[TrackedRun]) -> str:
    """The page over some runs, which needs nothing from elsewhere.

    Args:
        runs: The runs, in the order of the page's columns.
    """
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    parts = [
        f"<h1>{_text(title)}</h1>",
        "<h2>Scores</h2><p>The last value of every metric, as MLflow holds it.</p>",
        _scores(runs),
    ]
    if len(runs) > 1:
        parts += ["<h2>What differs</h2>", _differing_parameters(runs)]
    parts += ["<h2>Curves</h2>", _picture(_curves(runs), "curves of all runs")]
    for run in runs:
        parts += _one_run(run)
    body = "\n".join(parts)
    # The policy keeps the page offline even if a name in it tried to load something.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def _told_apart(runs: Sequence[TrackedRun]) -> list[TrackedRun]:
    """Runs of one name get a part of their id into it: columns and curves are named after runs."""
    names = [run.name for run in runs]
    return [
        dataclasses.replace(run, name=f"{run.name} ({run.run_id[:8]})")
        if names.count(run.name) > 1
        else run
        for run in runs
    ]


def _scores(runs: Sequence[TrackedRun]) -> str:
    values = [run.last() for run in runs]
    names = sorted({n for item in values for n in item if not n.startswith("system/")})
    rows = [[metric_label(name), *(item.get(name) for item in values)] for name in names]
    return _table(["metric", *(run.name for run in runs)], rows)


def _differing_parameters(runs: Sequence[TrackedRun]) -> str:
    names = sorted({name for run in runs for name in run.params})
    rows = [[name, *(run.params.get(name) for run in runs)] for name in names]
    kept = [row for row in rows if len(set(row[1:])) > 1]
    if not kept:
        return "<p>No parameter differs.</p>"
    return _table(["parameter", *(run.name for run in runs)], kept)


def _curves(runs: Sequence[TrackedRun]) -> bytes:
    names = sorted({n for run in runs for n in run.series if not n.startswith(("system/", "best"))})
    return charts.compared_curves(
        {name: {run.name: run.series.get(name, []) for run in runs} for name in names}
    )


def _one_run(run: TrackedRun) -> Iterable[str]:
    yield f"<h2>{_text(run.name)}</h2>"
    yield f"<p>Run <code>{_text(run.run_id)}</code>, {_text(run.status)}</p>"
    note = run.tags.get("mlflow.note.content", "")
    if note:
        plain = "\n".join(line for line in note.splitlines() if line.strip("`\n "))
        yield f"<pre>{_text(plain)}</pre>"
    tags = [[name, run.tags[name]] for name in _SHOWN_TAGS if name in run.tags]
    yield _table(["tag", "value"], tags)
    newest = _newest_picture(run)
    if newest is not None:
        yield _picture(newest[1], newest[0])
    for path in _FIGURES:
        data = run.read(path)
        if data is not None:
            yield _picture(data, path)
    yield from _tables(run)
    yield _details("Resolved configuration", _decoded(run.read("config.yaml")))
    yield _details("Provenance", _decoded(run.read("provenance.json")))
    yield _details("Difference from the commit", _decoded(run.read("code.diff")))


def _newest_picture(run: TrackedRun) -> tuple[str, bytes] | None:
    """The contact sheet of the best checkpoint, else the newest one."""
    # Others may have put pictures there under names of their own.
    named = (re.fullmatch(r"images/(.+?)\+step\+(\d+)\+.*\.png", path) for path in run.artifacts)
    sheets = [match for match in named if match is not None]
    if not sheets:
        return None
    newest = max(sheets, key=lambda match: ("best" in match[1], int(match[2])))
    data = run.read(newest[0])
    title = f"{newest[1].replace('~', '/')}, step {newest[2]}"
    return None if data is None else (title, data)


def _tables(run: TrackedRun) -> Iterable[str]:
    for title, folder in (("classes", "val_classes"), ("layers", "layers")):
        paths = sorted(p for p in run.artifacts if p.startswith(f"tables/{folder}/"))
        final = [p for p in run.artifacts if p == f"tables/test_{title}.json"]
        for path in [*final, *paths[-1:]]:
            try:
                rows = json.loads(run.read(path) or b"[]")
            except ValueError as error:
                _log.warning("run %s (%s): %s: no table: %s", run.run_id, run.name, path, error)
                yield f"<p><code>{_text(path)}</code> is no table: {_text(str(error))}</p>"
                continue
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                names = list(rows[0])
                body = _table(names, [[row.get(name) for name in names] for row in rows])
                yield f"<details><summary>{_text(path)}</summary>{body}</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        if value is None:
            return "<td></td>"
        if isinstance(value, float | int) and not isinstance(value, bool):
            # repr keeps every digit: the page's numbers are MLflow's numbers.
            return f'<td class="number">{value!r}</td>'
        return f"<td>{_text(str(value))}</td>"

    top = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>\n{body}</table></div>'


def _picture(data: bytes, title: str) -> str:
    encoded = base64.b64encode(data).decode()
    caption = f"<figcaption>{_text(title)}</figcaption>"
    picture = f'<img alt="{_text(title)}" src="data:image/png;base64,{encoded}">'
    return f"<figure>{picture}{caption}</figure>"


def _details(title: str, content: str) -> str:
    if not content:
        return ""
    return f"<details><summary>{_text(title)}</summary><pre>{_text(content)}</pre></details>"


def _decoded(content: bytes | None) -> str:
    return "" if content is None else content.decode(errors="replace")


def _text(value: str) -> str:
    return html.escape(value, quote=True)
