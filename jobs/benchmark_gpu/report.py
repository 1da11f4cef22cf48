"""Step 6: one page of everything that the steps wrote."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...datasets.inspection.html_page import render_page
from ...datasets.packed.files import write_file
from ..benchmark.neuron_tables import print_ratios, print_targets

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_PICTURES = {"Contact sheet": "contact_sheet.png", "Validation mIoU": "curves.png"}


def write_page(rows_file: Path, results: Sequence[dict[str, Any]], output: Path) -> None:
    """Write the page.

    Args:
        rows_file: Rows of all steps, one JSON object a line.
        results: State, seconds and limit of each step that was started.
        output: The HTML file; the pictures lie beside it.
    """
    rows = []
    if rows_file.is_file():
        rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    machine = next((row for row in rows if row.get("case") == "machine"), {})
    page = render_page(
        _TEMPLATE,
        title="spikeseg on a GPU",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine={k: v for k, v in machine.items() if k not in ("case", "step", "run")},
        results=results,
        checks=[row for row in rows if row.get("case") == "check"],
        neurons=_format_neurons([row for row in rows if "run" in row]),
        network=[row for row in rows if row.get("case") == "network"],
        training=[row for row in rows if row.get("step") == "training"],
        pictures={
            title: output.with_name(name).read_bytes()
            for title, name in _PICTURES.items()
            if output.with_name(name).is_file()
        },
    )
    write_file(output, page)


def _format_neurons(rows: Sequence[dict[str, Any]]) -> str:
    """Format the tables of `spikeseg benchmark neuron`, with the goals."""
    lines: list[str] = []
    print_ratios(rows, lines.append)
    print_targets(rows, lines.append)
    return "\n".join(lines)
