"""Performance targets of the neurons, and the tables at the end of `spikeseg benchmark neuron`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]
_MI = 1 << 20
_CUPY_LIF = "spikingjelly cupy LIF"
# Only rows of one run, on one device, are compared.
_KEY = ("run", "device", "case", "dtype", "T", "elements", "layout")


class Target(NamedTuple):
    """A target: another implementation's time over ours (`against`), or our `figure`.

    Attributes:
        device: Where it holds.
        case: Which neuron.
        steps: T.
        wanted: Least ratio, or least or most of a figure (`most`).
        against: Who is compared.
        figure: Which column of our row.
        least_elements: Smaller rows do not count; of the others the least favourable one does.
        most: Whether `wanted` is an upper bound.
    """

    device: str
    case: str
    steps: int
    wanted: float
    against: str = ""
    figure: str = ""
    least_elements: int = 64 * _MI
    most: bool = False


TARGETS = (
    Target("cuda", "stateless", 1, 0.92, figure="ceiling_share"),
    Target("cuda", "temporal", 4, 0.92, figure="ceiling_share"),
    Target("cuda", "binary", 4, 0.92, figure="ceiling_share"),
    Target("cuda", "stateless", 1, 0.85, figure="ceiling_share", least_elements=16 * _MI),
    Target("cuda", "stateless", 1, 0.14, figure="saved_bytes_per_element", most=True),
    Target("cuda", "temporal", 4, 0.14, figure="saved_bytes_per_element", most=True),
    Target("cuda", "stateless", 1, 3.8, against="published form, eager"),
    Target("cuda", "stateless", 1, 1.15, against="torch.compile"),
    Target("cuda", "stateless", 1, 1.15, against="torch.compile max-autotune"),
    Target("cuda", "stateless", 1, 2.2, against="spikingjelly triton ILIF"),
    Target("cuda", "stateless", 1, 3.0, against="spikingjelly triton ILIF / D"),
    Target("cuda", "stateless", 4, 1.6, against="spikingjelly triton ILIF"),
    Target("cuda", "binary", 4, 1.3, against="spikingjelly triton LIF"),
    Target("cuda", "binary", 4, 1.9, against=_CUPY_LIF),
    Target("cuda", "norm", 1, 1.4, against="BatchNorm, then our neuron"),
    Target("cuda", "norm", 1, 2.0, against="BatchNorm, then spikingjelly triton ILIF"),
    Target("cpu", "stateless", 1, 2.5, against="published form, eager", least_elements=0),
    Target("cpu", "temporal", 2, 2.5, against="published form, eager", least_elements=0),
    Target("cpu", "temporal", 4, 2.5, against="published form, eager", least_elements=0),
    Target("cpu", "temporal", 8, 2.5, against="published form, eager", least_elements=0),
    Target("cpu", "binary", 4, 2.5, against="published form, eager", least_elements=0),
)


# What a row of each case must have to be printed; every other case is a neuron's.
_TIMED = (*_KEY, "who", "phase", "launch", "median_us", "ceiling_share")
_NEEDED = {
    "machine": (),
    "ceiling": (),
    "cold start": ("who", "device", "neuron", "first_s", "compiled_at_second_shape"),
    "host cost": ("run", "who", "device", "phase", "launch", "median_us"),
    "network": ("run", "who", "device", "image", "median_s", "min_s", "largest_difference"),
}


def read_rows(path: Path) -> list[Row]:
    """Read the rows that `--output` wrote.

    Args:
        path: JSON lines.

    Raises:
        ValueError: Where a line is not a whole row, as at the end of a file that was cut off;
            names file, line and what is missing.
    """
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number}: not a JSON object on one line")
        needed = _NEEDED.get(str(row.get("case")), (*_TIMED, "saved_bytes_per_element"))
        missing = [name for name in needed if name not in row]
        if missing:
            raise ValueError(
                f"{path}:{number}: not a row of `spikeseg benchmark neuron`, it lacks "
                f"{', '.join(missing)}"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: holds no rows of `spikeseg benchmark neuron`")
    return rows


def print_ratios(rows: Sequence[Row], say: Callable[[str], None] = print) -> None:
    """Print each implementation's time over ours, forward and backward together."""
    timed = [row for row in rows if _is_timed(row)]
    ours = {_key(row): row for row in timed if row["who"] == "ours"}
    say(f"\n{'case':9} {'type':8} T {'elements':>10} {'against':42} {'ratio':>6} {'saved B':>8}")
    for row in timed:
        our_row = ours.get(_key(row))
        if our_row is None:
            continue
        ratio = row["median_us"] / our_row["median_us"]
        note = "" if row["layout"] == "dense" else f"  {row['layout']}"
        if row["who"] == "ours" and row["device"] == "cuda":
            note += f"  {row['ceiling_share']:.0%} of copy, by {row['launch']}"
        if row.get("peak_bytes_per_element") is not None:
            note += f"  peak {row['peak_bytes_per_element']:.2f} B"
        say(
            f"{row['case']:9} {row['dtype']:8} {row['T']} {row['elements']:10d} {row['who']:42} "
            f"{ratio:5.2f}x {row['saved_bytes_per_element']:8.3f}{note}"
        )


def print_targets(rows: Sequence[Row], say: Callable[[str], None] = print) -> None:
    """Print targets and results, a line for each type that was measured."""
    devices = {row["device"] for row in rows if "device" in row}
    say(f"\n{'target':66} {'type':8} {'wanted':>8} {'reached':>8}")
    for target in TARGETS:
        if target.device in devices:
            for dtype, reached in _reached(target, rows).items():
                _say_line(_name(target), dtype, target.wanted, reached, target.most, say)
            if not _reached(target, rows):
                say(f"{_name(target):66} {'':8} {target.wanted:8.2f} not measured")
    for row in rows:
        if row["case"] == "cold start" and row["who"] == "ours":
            name = f"first result from an empty cache, s, {row['neuron']}"
            _say_line(name, row["device"], 1.0, row["first_s"], True, say)
            name = f"variants compiled at a new shape of the same T, {row['neuron']}"
            _say_line(name, row["device"], 0, row["compiled_at_second_shape"], True, say)
    host = {(row["run"], row["who"]): row["median_us"] for row in rows if _is_host_cost(row)}
    both = [run for run, who in host if who == "our LIF" and (run, _CUPY_LIF) in host]
    for run in both:
        name = f"host cost of a call against {_CUPY_LIF}, us"
        _say_line(name, "float32", host[run, _CUPY_LIF] / 2, host[run, "our LIF"], True, say)
    if "cuda" in devices and not both:
        say(f"{f'host cost of a call, half of {_CUPY_LIF}':66} {'':8} {'':8} not measured")


def _say_line(
    name: str, dtype: str, wanted: float, reached: float, most: bool, say: Callable[[str], None]
) -> None:
    missed = reached > wanted if most else reached < wanted
    say(f"{name:66} {dtype:8} {wanted:8.2f} {reached:8.2f}{'  missed' if missed else ''}")


def _name(target: Target) -> str:
    what = f"against {target.against}" if target.against else target.figure.replace("_", " ")
    if 0 < target.least_elements < 64 * _MI:
        what += f", from {target.least_elements // _MI} Mi"
    return f"{target.case} T={target.steps}, {what}"


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _KEY)


def _is_timed(row: Row) -> bool:
    return row.get("phase") == "both" and row["case"] != "host cost"


def _is_host_cost(row: Row) -> bool:
    return row["case"] == "host cost" and row["phase"] == "both" and row["launch"] == "stream"


def _reached(target: Target, rows: Sequence[Row]) -> dict[str, float]:
    """Result for each type, from the least favourable row that counts."""
    timed = [
        row
        for row in rows
        if _is_timed(row)
        and (row["device"], row["case"], row["T"]) == (target.device, target.case, target.steps)
        and row["elements"] >= target.least_elements
        and row["layout"] == "dense"
    ]
    reached: dict[str, list[float]] = {}
    for row in timed:
        if target.figure and row["who"] == "ours":
            reached.setdefault(row["dtype"], []).append(row[target.figure])
        elif target.against and row["who"] == target.against:
            our_rows = [r for r in timed if r["who"] == "ours" and _key(r) == _key(row)]
            if our_rows:
                ratio = row["median_us"] / our_rows[0]["median_us"]
                reached.setdefault(row["dtype"], []).append(ratio)
    worst = max if target.most else min
    return {dtype: worst(values) for dtype, values in reached.items()}
