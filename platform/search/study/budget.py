"""The device time that a sweep may spend: no trial begins that would go beyond it."""

from collections.abc import Mapping

from .seconds_model import SecondsModel
from .trial_records import TrialRecord

_NEWEST = 200


class Budget:
    """Decides before a trial begins whether its expected cost still fits.

    What running trials still take comes from the model of seconds, what the next one takes is the
    mean of those that ended, stopped ones included. The last trials may take longer than expected,
    so the sum can be missed by about one trial a device.

    Args:
        seconds: Seconds of all trials together.
        steps: Training steps of a whole training.
    """

    def __init__(self, seconds: float, *, steps: int) -> None:
        self.seconds = seconds
        self._steps = steps

    def is_spent(self, records: Mapping[int, TrialRecord]) -> bool:
        """Whether the next trial is expected to end beyond the budget.

        Args:
            records: Trials by number.
        """
        ended = [item for item in records.values() if item.state in ("COMPLETE", "PRUNED", "FAIL")]
        spent = sum(item.seconds for item in records.values())
        usual = sum(item.seconds for item in ended) / len(ended) if ended else 0.0
        newest = [records[number] for number in sorted(records)[-_NEWEST:]]
        model = SecondsModel(newest, steps=self._steps)
        rest = 0.0
        for item in newest:
            if item.state == "RUNNING" and model.is_ready:
                share = 1 - max(item.history, default=0) / self._steps
                rest += share * model.predict(item.point)
            elif item.state == "RUNNING":
                rest += max(0.0, usual - item.seconds)
        return spent + rest + usual > self.seconds
