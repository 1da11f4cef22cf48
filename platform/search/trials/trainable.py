"""The Trainable that Tune runs; a file of its own, so that its process loads no Optuna."""

import json
import time
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from ...train.failure import PreemptedError
from ..study.trial_records import TrialReport
from .leaving import mark_left
from .trial_training import TrialFunction, WorkOrder

# Longer than the driver waits for its trials.
_LONGEST_WAIT = 600.0


class TrialActor(tune.Trainable):
    """Returns one report a step; reused by Tune for the next trial."""

    trial_function: TrialFunction

    def setup(self, config: WorkOrder) -> None:
        """Take a work order."""
        self._leave, self._number = config.get("leave", ""), config.get("number", 0)
        self._reports: Generator[TrialReport, None, None] = type(self).trial_function(config)

    def step(self) -> dict[str, Any]:
        """Train up to the next evaluation."""
        try:
            report = next(self._reports, TrialReport(failure="ended before its full budget"))
        except PreemptedError:
            # The driver ends this process once all trials have left; nothing is reported: the
            # trial has not ended, it goes on when the sweep does.
            if self._leave:
                mark_left(Path(self._leave), self._number)
            time.sleep(_LONGEST_WAIT)
            raise
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
