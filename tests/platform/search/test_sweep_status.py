"""How far a sweep is."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from toy_sweep import listed, toy_plan

from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_status import Watcher, fit_line


def test_time_left_counts_running_trials_as_far_as_they_were_evaluated(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial of four done and one half evaluated in 60 s: 2.5 are left, at 40 s each."""
    plan = toy_plan(tmp_path, **listed(1, 2, 4, 8))
    steps = plan.base.config.trainer.max_steps
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    keeper: Any = SimpleNamespace(
        folder=tmp_path,
        trials=4,
        records={},
        ended=[],
        running={},
        live_numbers=set(),
        finished=0,
    )
    watcher = Watcher(plan, keeper)
    assert watcher.status().eta_seconds is None
    keeper.records[0] = TrialRecord(0, "FAIL")
    keeper.records[1] = TrialRecord(1, "RUNNING", history={steps // 2: {}})
    keeper.ended, keeper.running = [0], {1: keeper.records[1]}
    keeper.live_numbers, keeper.finished = {1}, 1
    now = 160.0
    assert watcher.status().eta_seconds == pytest.approx(100.0)
    # Who continues has not earned what was there before.
    again = Watcher(plan, keeper)
    assert again.status().eta_seconds is None


def test_a_line_is_cut_where_it_is_too_long_for_a_terminal() -> None:
    assert fit_line("short") == "short"
    cut = fit_line("trial 3 " + "x" * 400)
    assert len(cut) < 160 - len("[1234.5 s] ")
    assert cut.endswith("...")
