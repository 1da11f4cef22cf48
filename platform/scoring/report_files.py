"""A report on disk: `evaluation.json`, CSV tables, pictures, and one HTML page with all of it."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.inspection.html_page import render_page
from ...datasets.packed.files import write_file
from ..config.errors import ConfigError
from ..figures.charts import draw_confusion
from ..figures.contact_sheet import draw_contact_sheet
from ..figures.evaluation_charts import draw_reliability, draw_score_against_energy
from .image_worker import ImageWorker

_TEMPLATE = Path(__file__).with_name("evaluation.html.j2")
_HEAD = ("checkpoint", "data", "data_digest", "split", "rows")
# Of more images than these the page shows the worst; the CSV has all.
_SHOWN_IMAGES = 50


def find_worst(report: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The images with the lowest mIoU, the worst first; those without a labelled pixel are out."""
    scored = [image for image in report["images"] if image["mIoU"] is not None]
    return sorted(scored, key=lambda image: (image["mIoU"], image["row"]))[:count]


def write_report_files(
    report: dict[str, Any], worker: ImageWorker, folder: Path, *, worst: int
) -> Path:
    """Write everything that is known of an evaluation.

    Args:
        report: Of `evaluate_run`.
        worker: Labels the worst images again, for their pictures.
        folder: Folder to write; made if it is not there.
        worst: Number of worst images in a picture.

    Returns:
        The HTML page.

    Raises:
        ConfigError: Where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror})") from error
    write_file(folder / "evaluation.json", json.dumps(report, indent=1))
    names = [line["class"] for line in report["classes"]]
    confusion = [
        {"label": name, **dict(zip([*names, "none"], counts, strict=True))}
        for name, counts in zip(names, report["confusion"], strict=True)
    ]
    for name, rows in (
        ("images", report["images"]),
        ("classes", report["classes"]),
        ("confusion", confusion),
        ("curve", report["curve"]),
    ):
        if rows:
            write_file(folder / f"{name}.csv", format_csv(rows))
    pictures = _draw_pictures(report, worker, names, worst=worst)
    for name, (_, png) in pictures.items():
        write_file(folder / f"{name}.png", png)
    page = folder / "evaluation.html"
    write_file(page, _render(report, list(pictures.values()), worst=worst))
    return page


def format_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a head; a value that is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _draw_pictures(
    report: dict[str, Any], worker: ImageWorker, names: list[str], *, worst: int
) -> dict[str, tuple[str, bytes]]:
    """File name -> title and PNG."""
    pictures = {
        "confusion": (
            "confusion matrix, percent of each true class",
            draw_confusion(np.array(report["confusion"]), names),
        ),
        "reliability": (
            "reliability: how often pixels of a confidence are right",
            draw_reliability(report["calibration"]),
        ),
    }
    if len(report["curve"]) > 1:
        drawn = draw_score_against_energy(report["curve"], "mIoU")
        pictures["curve"] = ("score against energy, the trained network at other T and D", drawn)
    chosen = find_worst(report, worst)
    if chosen:
        labelled = worker.label_rows([image["row"] for image in chosen])
        cells = [
            (f"{row.id}, mIoU {image['mIoU']:.1f} %", row.image, row.label, label)
            for image, (row, label) in zip(chosen, labelled, strict=True)
        ]
        sheet = draw_contact_sheet(cells, worker.loaded.space)
        pictures["worst"] = (f"the {len(cells)} images with the lowest mIoU", sheet)
    return pictures


def list_shown_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics that a person is shown: all but `mFscore`.

    As the published evaluator defines it, it is `mDice` where every class was hit somewhere, and
    leaves out those that were not: one class of ten at 60, the rest at 0, has an `mFscore` of 60.
    """
    return {key: value for key, value in metrics.items() if not key.endswith("/mFscore")}


def _render(report: dict[str, Any], pictures: list[tuple[str, bytes]], *, worst: int) -> str:
    shown = find_worst(report, max(worst, _SHOWN_IMAGES))
    forms = [
        {
            "form": form["form"],
            **{
                key.partition("/")[2]: value
                for key, value in list_shown_metrics(form["metrics"]).items()
            },
            "pixels that differ": form["different_pixels"],
            "in percent": form["different_percent"],
        }
        for form in report["forms"]
    ]
    settings = [[name, json.dumps(value)] for name, value in report["settings"].items()]
    shown_metrics = list_shown_metrics(report["metrics"])
    before = [
        ("Scores", [{"metric": name, "value": v} for name, v in shown_metrics.items()]),
        ("Forms of the network", forms if len(forms) > 1 else []),
        ("Score against energy", report["curve"]),
    ]
    after = [
        ("Classes, in percent", report["classes"]),
        (f"Images, the worst {len(shown)} first", shown),
    ]
    return render_page(
        _TEMPLATE,
        title=f"Evaluation of {Path(report['checkpoint']).parents[1].name} on {report['split']}",
        head=[[name, report[name]] for name in _HEAD] + settings,
        pictures=pictures,
        before=_list_tables(before),
        after=_list_tables(after),
    )


def _list_tables(
    tables: list[tuple[str, list[dict[str, Any]]]],
) -> list[tuple[str, list[str], list[list[Any]]]]:
    """Title, head and rows of the tables that have rows."""
    return [
        (title, list(rows[0]), [list(row.values()) for row in rows])
        for title, rows in tables
        if rows
    ]
