"""The Trainable that Tune runs; a file of its own, so that its process loads no Optuna."""

import json
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

from ray import tune

from ..study.trial_records import TrialReport
from .trial_training import TrialFunction, WorkOrder


class TrialActor(tune.Trainable):
    """Returns one report a step; reused by Tune for the next trial."""

    trial_function: TrialFunction

    def setup(self, config: WorkOrder) -> None:
        """Take a work order."""
        self._reports: Generator[TrialReport, None, None] = type(self).trial_function(config)

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation."""
        report = next(self._reports, TrialReport(failure="ended before its full budget"))
        # As text: Tune would flatten a mapping into keys of its own.
        return {"report": json.dumps(asdict(report))}

    def reset_config(self, new_config: WorkOrder) -> bool:
        """Drop everything of the last trial and take the next one's order."""
        self.cleanup()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Close the trial's files; its model goes with the generator."""
        self._reports.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Does nothing: a trial keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Does nothing: a trial finds its own checkpoints."""
