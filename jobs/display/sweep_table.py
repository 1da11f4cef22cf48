"""The table of a sweep that runs, for a terminal."""

from typing import Any

from ...platform.search.sweep_file.point_names import format_point
from ...platform.search.sweep_status import summary


def sweep_table(status: Any) -> Any:
    """The state of a sweep as a table: counts, cost and time left; running trials, best and front.

    Args:
        status: The sweep's state (`SweepStatus`).

    Returns:
        A table for rich.
    """
    from rich.table import Table

    table = Table(title=f"{status.name}: {summary(status)}", title_justify="left", expand=True)
    for column in ("trial", "step", *status.objectives):
        table.add_column(column, no_wrap=True)
    table.add_column("point", ratio=1)
    marked = [("running", item) for item in status.running]
    marked += [("best", status.best)] if status.best is not None else []
    marked += [("front", item) for item in status.front if item is not status.best]
    for word, item in marked:
        step = max(item.history, default=0)
        metrics = item.history.get(step, {})
        values = [f"{metrics[n]:.4g}" if n in metrics else "" for n in status.objectives]
        steps = f"{step}/{status.steps}"
        table.add_row(f"{item.number} {word}", steps, *values, format_point(item.point))
    return table
