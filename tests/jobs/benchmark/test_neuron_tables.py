"""The neurons' benchmark prints its tables from recorded lines: targets beside what was reached."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from spikeseg.jobs.benchmark import neuron
from spikeseg.jobs.benchmark.neuron import command
from spikeseg.jobs.benchmark.neuron_machine import read_card_state
from spikeseg.jobs.benchmark.neuron_overhead import measure_cold_start
from spikeseg.jobs.benchmark.neuron_tables import print_ratios, print_targets

CUPY_LIF = "spikingjelly cupy LIF"
MI = 1 << 20


def row(who: str, micros: float, **more: Any) -> dict[str, Any]:
    usual = {"case": "stateless", "phase": "both", "dtype": "float32", "T": 1, "device": "cuda"}
    usual |= {"elements": 64 * MI, "layout": "dense", "launch": "stream", "run": "first"}
    usual |= {"ceiling_share": 0.95, "saved_bytes_per_element": 0.125}
    return usual | {"who": who, "median_us": micros} | more


ROWS = [
    {"case": "machine", "torch": "x"},
    {
        **{"case": "cold start", "who": "ours", "device": "cuda", "first_s": 0.7},
        **{"neuron": "stateless"},
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


def test_targets_stand_beside_what_was_reached() -> None:
    said = lines_of(print_targets)

    def line(start: str) -> list[str]:
        (found,) = [each for each in said if each.startswith(start)]
        return found[66:].split()

    assert line("stateless T=1, against published form, eager") == ["float32", "3.80", "4.00"]
    assert line("stateless T=1, against torch.compile  ") == ["float32", "1.15", "1.10", "missed"]
    assert line("stateless T=1, ceiling share  ") == ["float32", "0.92", "0.95"]
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


def test_a_target_is_held_against_the_least_favourable_row_that_counts() -> None:
    def both(case: str, micros: float, elements: int) -> list[dict[str, Any]]:
        usual = {"case": case, "T": 4, "device": "cpu", "elements": elements}
        return [row("ours", 10.0, **usual), row("published form, eager", micros, **usual)]

    rows = both("binary", 14.6, MI // 8) + both("binary", 26.0, 4 * MI)
    said: list[str] = []
    print_targets(rows, said.append)
    (line,) = [each for each in said if each.startswith("binary T=4, against published")]
    assert line[66:].split() == ["float32", "2.50", "1.46", "missed"]
    # The host's cost has no limit where only the other was measured.
    print_targets([row("spikingjelly cupy LIF", 60.0, case="host cost")], said.append)


def test_smaller_rows_count_where_a_target_says_so() -> None:
    share = {"elements": 16 * MI, "ceiling_share": 0.8}
    said: list[str] = []
    print_targets([*ROWS, row("ours", 70.0, **share)], said.append)
    shares = [each[66:].split()[1:] for each in said if each.startswith("stateless T=1, ceiling")]
    assert shares == [["0.92", "0.95"], ["0.85", "0.80", "missed"]]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_places_are_measured_once_and_a_full_card_ends_nothing(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measure(place: Any, *_: Any) -> None:
        asked.append(place)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(neuron, "_measure", measure)
    points = neuron._list_points(device)
    neuron._measure_grid(points, device, False, math.inf, lambda _: None)
    assert len(asked) == len(set(asked)) == capsys.readouterr().out.count("memory is too small")
    largest = max(elements for _, _, _, elements, _ in asked)
    assert (largest > 2**31) == (device == "cuda")


@pytest.mark.parametrize("other", [{"run": "second"}, {"device": "cpu"}], ids=["run", "device"])
def test_rows_of_another_run_or_device_are_not_compared(other: dict[str, str]) -> None:
    rows = [row("ours", 1000.0), row("published form, eager", 5000.0)]
    rows += [row("ours", 10.0) | other, row("published form, eager", 40.0) | other]
    said: list[str] = []
    print_ratios(rows, said.append)
    assert re.findall(r"\S+x", "".join(said[1:])) == ["1.00x", "5.00x", "1.00x", "4.00x"]
    said.clear()
    print_targets(rows, said.append)
    eager = [e[66:].split() for e in said if e.startswith("stateless T=1, against published")]
    assert sorted(each[-1] for each in eager) in (["4.00"], ["4.00", "5.00"])


def test_the_hosts_cost_of_two_runs_is_not_compared() -> None:
    ours, theirs = (row(who, 60.0, case="host cost") for who in ("our LIF", CUPY_LIF))
    for run, reached in (("first", "missed"), ("second", "measured")):
        said: list[str] = []
        print_targets([ours, theirs | {"run": run}], said.append)
        (line,) = [each for each in said if each.startswith("host cost of a call")]
        assert line.split()[-1] == reached


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "said"),
    [
        (-9, "", "", "skipped cold start of ours (temporal, empty cache): ended with code -9"),
        (
            1,
            "",
            "frame\nOSError: x\n",
            "skipped cold start of ours (binary, empty cache): OSError: x",
        ),
        (
            0,
            "hello\nROW\nbye\n",
            "",
            "cold start: ours, stateless, empty cache, first result 0.500 s",
        ),
        (
            0,
            "hello\n",
            "",
            "skipped cold start of ours (stateless, empty cache): ended with code 0",
        ),
    ],
    ids=["killed", "failed", "talkative", "silent"],
)
def test_a_child_that_dies_or_talks_does_not_end_the_benchmark(
    code: int,
    stdout: str,
    stderr: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = {"first_s": 0.5, "second_shape_s": 0.1, "second_steps_s": 0.2}
    told |= {"compiled_at_second_shape": 0, "compiled_at_second_steps": 1}
    done = SimpleNamespace(returncode=code, stderr=stderr)
    done.stdout = stdout.replace("ROW", json.dumps(told))
    monkeypatch.setattr(
        "spikeseg.jobs.benchmark.neuron_overhead.subprocess.run", lambda *_, **__: done
    )
    rows: list[dict[str, Any]] = []
    measure_cold_start("cpu", False, rows.append)
    assert said in capsys.readouterr().out
    assert len(rows) == (3 if "ROW" in stdout else 0)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda text: text[:-30], ":9: not a JSON object on one line"),
        (lambda text: text + "[1]\n", ":10: not a JSON object on one line"),
        (lambda text: text.replace('"who"', '"Who"'), ":2: not a row .* it lacks who"),
        (lambda text: text.replace('"case": "stateless", ', ""), ":5: not a row .* it lacks case"),
        (lambda text: "", ": holds no rows"),
    ],
    ids=["cut off", "no object", "renamed", "no case", "empty"],
)
def test_lines_that_are_no_rows_are_named(
    tmp_path: Path, cut: Callable[[str], str], said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(cut("".join(json.dumps(each) + "\n" for each in ROWS)))
    with pytest.raises(ValueError, match=re.escape(str(path)) + said):
        CliRunner().invoke(command, ["--table", str(path)], catch_exceptions=False)


def test_a_card_is_told_with_driver_clocks_and_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --id=GPU-12ab ] || exit 6\n'
        '[ "$2" = --query-gpu=driver_version,clocks.sm,clocks.mem,temperature.gpu ] || exit 2\n'
        "echo 580.65.06, 1980 MHz, 3201 MHz, 34\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    card = SimpleNamespace(uuid="12ab")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert read_card_state() == {
        "driver": "580.65.06",
        "clock_sm": "1980 MHz",
        "clock_memory": "3201 MHz",
        "temperature_c": "34",
    }
    card.uuid = "another"
    assert read_card_state() == {"driver": "unknown"}
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert read_card_state() == {"driver": "unknown"}


def test_a_networks_step_is_measured_with_each_kind_of_neuron(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spikeseg.jobs.benchmark.neuron_network._SIZES", (32,))
    monkeypatch.setattr("spikeseg.jobs.benchmark.neuron_network._ROUNDS", 1)
    path = tmp_path / "rows.jsonl"
    options = ["--network", "--device", "cpu", "--output", str(path)]
    measured = CliRunner().invoke(command, options, catch_exceptions=False)
    printed = CliRunner().invoke(command, ["--table", str(path)], catch_exceptions=False)
    table = printed.output.strip().splitlines()
    assert len(table) == 4 and printed.output.strip() in measured.output
    # Every kind computes the same numbers, so that times alone are compared.
    assert all(line.endswith("x  equal") for line in table[1:])
