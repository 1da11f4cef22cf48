"""The driver's cost: stages by themselves, whole trials of a real sweep without a training."""

import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from plans import BASE

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.jobs.benchmark import sweep_driver
from spikeseg.jobs.benchmark.sweep import command
from spikeseg.jobs.benchmark.sweep_driver import DriverCost, StageClock, cost_lines, measure_driver
from spikeseg.platform.search.study.study import Keeper


def test_a_stage_within_another_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "thread_time", lambda: now)
    monkeypatch.setattr(time, "process_time", lambda: now + 7.0)
    clock = StageClock()
    now = 1.0
    with clock.stage("judge"):
        now = 3.0
        with clock.stage("sampler"):
            now = 6.0
        now = 10.0
    now = 15.0
    assert clock.read() == {"rest": 6.0, "judge": 6.0, "sampler": 3.0, "upload": 7.0}


def test_the_drivers_own_time_leaves_out_the_proposal_and_the_upload() -> None:
    cost = DriverCost(100, {"sampler": 1.0, "upload": 2.0, "judge": 0.25, "rest": 0.5})
    assert cost.own == 0.75
    head, columns, row, end = cost_lines("tpe", [cost], 12.34)
    assert head == "sampler tpe: CPU seconds a trial"
    assert dict(zip(columns.split(), row.split(), strict=True)) == {
        "trials": "100",
        "sampler": "1.0000",
        "begin": "0.0000",
        "configure": "0.0000",
        "judge": "0.2500",
        "status": "0.0000",
        "journal": "0.0000",
        "rest": "0.5000",
        "upload": "2.0000",
        "driver": "0.7500",
    }
    assert end.endswith("12.3 CPU seconds in all")


def test_too_few_trials_are_refused() -> None:
    ran = CliRunner().invoke(command, ["demo", "--driver", "--trials", "99"])
    assert ran.exit_code == 2 and "--driver needs --trials 100 or more, got 99" in ran.output


@pytest.mark.slow
def test_whole_trials_are_measured_for_each_sampler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_driver, "MARKS", (3, 6))
    monkeypatch.setattr(sweep_driver, "_WINDOW", 2)
    data = tmp_path / "data"
    pack("shapes", Shapes(ShapesOptions(size=(32, 32), train=8, val=3, test=3)), Path(), data)
    recipe = tmp_path / "mine.yaml"
    space = {"loss.mask_weight": {"low": 5.0, "high": 40.0}}
    recipe.write_text(yaml.safe_dump(BASE | {"space": space}))
    begin = Keeper.next
    overrides = [f"data.path={data}"]
    measured = list(measure_driver(str(recipe), overrides, storage=tmp_path / "runs", trials=6))
    assert [name for name, _, _ in measured] == ["random", "tpe"]
    for _, costs, end in measured:
        assert [cost.trials for cost in costs] == [3, 6]
        assert end > 0 and all(cost.own > 0 for cost in costs)
        assert all(cost.stages[name] > 0 for cost in costs for name in ("begin", "judge", "rest"))
    assert Keeper.next is begin, "nothing is timed any more"
    (random_sweep, tpe_sweep) = sorted((tmp_path / "runs").iterdir())
    assert "random" in random_sweep.name and "tpe" in tpe_sweep.name
