"""Tune's view of the keeper: a searcher that asks, a scheduler that judges, a trainable that works.

Tune is placement, restart and warm processes. The shapes here are the ones that held under kills:
a class trainable with reused actors, failures as data, decisions told before STOP is returned, no
checkpoints of Tune's, nothing of Tune restored.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from .study import Keeper
from .trial import reports
from .verdict import Proposal, TrialReport, Verdict

Given = dict[str, Any]


class KeeperSearcher(Searcher):
    """Asks the keeper for trials; told nothing, since the scheduler decides.

    Args:
        keeper: The keeper.
        prepare: Makes a trial's work order from a proposal.
        ended: Told of trials whose process was lost.
    """

    def __init__(
        self,
        keeper: Keeper,
        prepare: Callable[[Proposal], Given],
        ended: Callable[[int, Verdict], None],
    ) -> None:
        super().__init__()
        self._keeper = keeper
        self._prepare = prepare
        self._ended = ended
        self.numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Given | str | None:
        """The next trial's work order, or that none is left."""
        proposal = self._keeper.next()
        if proposal is None:
            return Searcher.FINISHED if self._keeper.live == 0 else None
        self.numbers[trial_id] = proposal.number
        return self._prepare(proposal)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Catch what ended without a decision: a process that died too often."""
        number = self.numbers.pop(trial_id, None)
        if number is None:
            return
        reason = "killed: its process died" if error else "ended without a decision"
        verdict = self._keeper.lost(number, reason)
        if verdict is not None:
            self._ended(number, verdict)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the truth."""


class KeeperScheduler(FIFOScheduler):
    """Hands every report to the keeper and does what it decided.

    Args:
        keeper: The keeper.
        told: Told of every report and the decision on it.
    """

    def __init__(self, keeper: Keeper, told: Callable[[int, TrialReport, Verdict], None]) -> None:
        super().__init__()
        self._keeper = keeper
        self._told = told

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Judge one report: CONTINUE, or STOP once the study knows the end."""
        number = trial.config["number"]
        report = TrialReport(**result["report"])
        verdict = self._keeper.report(number, report)
        self._told(number, report, verdict)
        return TrialScheduler.CONTINUE if verdict.state is None else TrialScheduler.STOP


class TrialWork(tune.Trainable):
    """Works through one trial's reports, one a step; the process then serves the next trial."""

    def setup(self, config: Given) -> None:
        """Take a work order."""
        self._reports: Iterator[TrialReport] = reports(config)

    def step(self) -> Given:
        """Train up to the next evaluation."""
        report = next(self._reports, TrialReport(failure="ended before its full budget"))
        return {"report": asdict(report)}

    def reset_config(self, new_config: Given) -> bool:
        """Drop everything of the last trial and take the next one's order."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close the trial's files; its model goes with the generator."""
        close = getattr(self._reports, "close", None)
        if close is not None:
            close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a trial finds its own checkpoints."""
