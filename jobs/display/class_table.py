"""The per-class table as text."""

from typing import Any


def format_class_table(rows: list[dict[str, Any]]) -> str:
    """Format per-class scores as text; a class that never occurs has dashes."""

    def cell(name: str, value: float | None) -> str:
        return ("-" if value is None else f"{value:.2f}").rjust(max(6, len(name)))

    width = max(len(row["class"]) for row in rows)
    columns = [name for name in rows[0] if name != "class"]
    head = " ".join(["class".ljust(width + 1), *(name.rjust(6) for name in columns)])
    lines = (
        " ".join([row["class"].ljust(width + 1), *(cell(name, row[name]) for name in columns)])
        for row in rows
    )
    return "\n".join([head, *lines])
