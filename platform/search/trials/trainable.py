"""A trial's process as Tune sees it; apart, so that such a process loads nothing of the study."""

import json
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

from ray import tune

from ..study.trial_records import TrialReport
from .trial_training import Given, Work


class TrialWork(tune.Trainable):
    """Works through one trial's reports, one a step; the process then serves the next trial."""

    work: Work

    def setup(self, config: Given) -> None:
        """Take a work order."""
        self._reports: Generator[TrialReport, None, None] = type(self).work(config)

    def step(self) -> Given:
        """Train up to the next evaluation."""
        report = next(self._reports, TrialReport(failure="ended before its full budget"))
        # As text: Tune would flatten a mapping into keys of its own.
        return {"report": json.dumps(asdict(report))}

    def reset_config(self, new_config: Given) -> bool:
        """Drop everything of the last trial and take the next one's order."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close the trial's files; its model goes with the generator."""
        self._reports.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a trial finds its own checkpoints."""
