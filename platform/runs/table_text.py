"""A table of runs as Markdown, CSV or LaTeX."""

import csv
import io
from collections.abc import Callable

from .run_table import Cell, RunTable

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def write_markdown(table: RunTable) -> str:
    """Columns of equal width between bars; what is best by more than its spread is bold."""
    rows = [[_mark(cell, "**", "**") for cell in row] for row in table.rows]
    rows = [[text.replace("|", r"\|") for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(table.head, *rows, strict=True)]
    lines = [table.head, ["-" * width for width in widths], *rows]
    return "".join(
        f"| {' | '.join(t.ljust(w) for t, w in zip(line, widths, strict=True))} |\n"
        for line in lines
    )


def write_csv(table: RunTable) -> str:
    """One column for a mean and one for half of its interval, where there are several seeds."""
    wide = [any("±" in row[index].text for row in table.rows) for index in range(len(table.head))]
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    head = [
        [name, f"{name} ±"] if two else [name] for name, two in zip(table.head, wide, strict=True)
    ]
    writer.writerow([name for names in head for name in names])
    for row in table.rows:
        cells: list[str] = []
        for cell, two in zip(row, wide, strict=True):
            mean, _, half = cell.text.partition(" ± ")
            cells += [mean, half] if two else [cell.text]
        writer.writerow(["" if text == "-" else text for text in cells])
    return buffer.getvalue()


def write_latex(table: RunTable) -> str:
    """A tabular with booktabs' rules; what is best by more than its spread is bold."""
    lines = [r"\begin{tabular}{" + "l" * len(table.head) + "}", r"\toprule"]
    lines.append(" & ".join(map(_escape, table.head)) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        texts = [
            rf"\textbf{{{_escape(cell.text)}}}" if cell.best else _escape(cell.text) for cell in row
        ]
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


WRITERS: dict[str, Callable[[RunTable], str]] = {
    "md": write_markdown,
    "csv": write_csv,
    "latex": write_latex,
}
"""Format -> what writes it."""


def _mark(cell: Cell, begin: str, end: str) -> str:
    return f"{begin}{cell.text}{end}" if cell.best else cell.text


def _escape(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
