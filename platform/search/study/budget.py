"""What a sweep may spend: its configurations, and device time that no new trial goes beyond."""

from collections.abc import Mapping, Set

from ..sweep_file.plan import SweepPlan
from .samplers import key_of
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


class Quota:
    """How many configurations a sweep has, whatever becomes of them.

    Args:
        plan: The sweep.
        asked: How many are asked for.
        tried: Keys of the points that were tried.
        begun: Configurations that were begun.

    Attributes:
        added: Points given by hand, which are on top.
    """

    def __init__(self, plan: SweepPlan, asked: int, tried: Set[str], *, begun: int) -> None:
        self._most: int | None = None
        self.added = 0
        if plan.recipe.sampler.name in ("grid", "listed"):
            asked = min(asked, len(plan.points))
        elif (points := plan.recipe.space.few_points()) is not None:
            self._most = begun + sum(key_of(point) not in tried for point in points)
            asked = min(asked, self._most)
        self._asked = asked

    def count(self, begun: int) -> int:
        """Configurations in all.

        Args:
            begun: Those that were begun by now, each of which is brought to an end.
        """
        wanted = self._asked + self.added
        return max(begun, wanted if self._most is None else min(wanted, self._most))
