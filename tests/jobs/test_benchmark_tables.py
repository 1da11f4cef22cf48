"""The neurons' benchmark prints its tables from recorded lines: targets beside what was reached."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from spikeseg.jobs.benchmark.neuron import command
from spikeseg.jobs.benchmark.neuron_targets import print_ratios, print_targets

MI = 1 << 20


def row(who: str, micros: float, **more: Any) -> dict[str, Any]:
    usual = {"case": "stateless", "phase": "both", "dtype": "float32", "T": 1, "device": "cuda"}
    usual |= {"elements": 64 * MI, "layout": "dense", "launch": "stream"}
    usual |= {"ceiling_share": 0.95, "saved_bytes_per_element": 0.125}
    return usual | {"who": who, "median_us": micros} | more


ROWS = [
    {"case": "machine", "torch": "x"},
    {
        **{"case": "cold start", "who": "ours", "device": "cuda", "first_s": 0.7},
        **{"second_shape_s": 0.001, "compiled_at_second_shape": 0},
    },
    row("our LIF", 40.0, case="host cost", elements=1024),
    row("spikingjelly cupy LIF", 60.0, case="host cost", elements=1024),
    row("ours", 250.0),
    row("published form, eager", 1000.0),
    row("torch.compile", 275.0),
    row("published form, eager", 30.0, elements=MI),
    row("ours", 30.0, elements=MI),
]


def lines_of(printer: Any) -> list[str]:
    said: list[str] = []
    printer(ROWS, said.append)
    return said


def test_a_ratio_is_the_others_time_over_ours_at_the_same_place() -> None:
    said = lines_of(print_ratios)
    (eager,) = [line for line in said if "published" in line and str(64 * MI) in line]
    assert " 4.00x" in eager
    (small,) = [line for line in said if "published" in line and f" {MI} " in line]
    assert " 1.00x" in small


def test_targets_stand_beside_what_was_reached_on_the_largest_row() -> None:
    said = lines_of(print_targets)

    def line(start: str) -> list[str]:
        (found,) = [each for each in said if each.startswith(start)]
        return found[66:].split()

    assert line("stateless T=1, against published form, eager") == ["float32", "3.80", "4.00"]
    assert line("stateless T=1, against torch.compile  ") == ["float32", "1.15", "1.10", "missed"]
    assert line("stateless T=1, ceiling share") == ["float32", "0.92", "0.95"]
    assert line("stateless T=1, saved bytes") == ["float32", "0.14", "0.12"]
    assert line("binary T=4, against spikingjelly cupy LIF") == ["1.90", "not", "measured"]
    assert line("first result from an empty cache") == ["cuda", "1.00", "0.70"]
    assert line("host cost of a call") == ["float32", "30.00", "40.00", "missed"]


def test_recorded_lines_are_printed_without_measuring(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    result = CliRunner().invoke(command, ["--table", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "4.00x" in result.output and "not measured" in result.output
    assert "in all" not in result.output
