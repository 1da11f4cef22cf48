"""What Tune tells of dead processes becomes another attempt or a reason, never a lost trial."""

from pathlib import Path
from typing import Any

from toy_sweep import listed, toy_plan

from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import Proposal, TrialReport, Verdict
from spikeseg.platform.search.trials.engine import TrialQueue
from spikeseg.platform.search.trials.ray_tune import KeeperSearcher
from spikeseg.platform.search.trials.trial import reports


def searcher_of(folder: Path, max_failures: int) -> tuple[KeeperSearcher, Keeper]:
    plan = toy_plan(folder, **listed(2, 4))
    storage = f"sqlite:///{folder / 'study.db'}"
    keeper = Keeper(plan, folder, storage=storage, trials=2)

    def prepare(proposal: Proposal) -> dict[str, Any]:
        return {"attempt": proposal.attempt}

    def on_report(number: int, report: TrialReport, verdict: Verdict) -> None:
        del number, report, verdict

    return KeeperSearcher(TrialQueue(keeper, prepare, on_report, reports), max_failures), keeper


def test_a_process_that_died_before_its_first_step_is_another_attempt(tmp_path: Path) -> None:
    searcher, keeper = searcher_of(tmp_path, max_failures=3)
    assert searcher.suggest("a") == {"number": 0, "attempt": 1}
    for attempt, deaths in ((2, 1), (3, 2)):
        # Tune gives such a trial up at once, whatever may still fail.
        searcher.errors["a"] = ("", deaths)
        searcher.on_trial_complete("a", error=True)
        assert searcher.suggest("a") == {"number": 0, "attempt": attempt}
    searcher.errors["a"] = ("", 1)
    searcher.on_trial_complete("a", error=True)
    assert keeper.records[0].state == "FAIL"
    assert keeper.records[0].reason == "killed: its process died 4 times"
    assert searcher.suggest("b") == {"number": 1, "attempt": 1}


def test_a_process_that_dies_after_the_decision_changes_nothing(tmp_path: Path) -> None:
    searcher, keeper = searcher_of(tmp_path, max_failures=3)
    searcher.suggest("a")
    keeper.lost(0, "decided")
    searcher.errors["a"] = ("", 1)
    searcher.on_trial_complete("a", error=True)
    assert keeper.records[0].reason == "decided"
    given = searcher.suggest("b")
    assert isinstance(given, dict) and given["number"] == 1
