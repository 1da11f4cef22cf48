"""`sources.csv`: which files of the source each packed row was read from."""

import csv
import io
from collections.abc import Iterable, Sequence

from ..spec import RawRow

SOURCES = "sources.csv"


def format_sources(shards: Iterable[tuple[str, Sequence[RawRow]]]) -> str:
    """Format split, id, image and label of every row as CSV, in their order.

    Args:
        shards: Split and rows of each shard; bad rows are listed too.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["split", "id", "image", "label"])
    for split, rows in shards:
        table.writerows([split, row.id, *row.sources] for row in rows)
    return text.getvalue()
