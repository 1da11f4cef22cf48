"""The tables of `docs/run_contents.md`: what runs hold in MLflow, as its readers are told."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "run_contents.md"


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading, its two first lines left out."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 2, f"{PAGE}: no table below {heading}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(heading: str) -> set[str]:
    """Every name in backticks in the first column of the table below a heading."""
    return {name for row in rows(heading) for name in re.findall(r"`([^`]+)`", row[0])}
