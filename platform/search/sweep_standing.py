"""Where a sweep stands: states, time, best trial, front, hypervolume; kept up as trials end."""

from collections import Counter
from collections.abc import Mapping

from ..evaluation.baselines import is_degenerate
from .study.pareto import Front, Vector, front, hypervolume
from .study.replication import is_result
from .study.study import Keeper
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan
from .sweep_groups import measure_groups, score_groups


class Standing:
    """Counts and front over the trials that have ended; each is looked at once.

    Args:
        plan: The sweep.
        keeper: Its keeper.

    Attributes:
        states: State -> trials with an end.
        seconds: Time spent on them.
        broken: Those that finished and break a constraint, and so are no results.
        degenerate: Results that are no better than an answer that ignores the image.
    """

    def __init__(self, plan: SweepPlan, keeper: Keeper) -> None:
        self._plan = plan
        self._keeper = keeper
        self._looked_at = 0
        self._front = Front()
        self._degenerate_front = Front()
        self._volume: float | None = None
        self._scores: list[float] = []
        self.states: Counter[str] = Counter()
        self.seconds = 0.0
        self.broken = 0
        self.degenerate = 0
        self.update()

    def update(self) -> None:
        """Take in the trials that ended since the last call."""
        new = self._keeper.ended[self._looked_at :]
        for number in new:
            record = self._keeper.records[number]
            self.states[record.state] += 1
            self.seconds += record.seconds
            if record.state == "COMPLETE" and record.violations:
                self.broken += 1
            elif is_result(record):
                degenerate = is_degenerate_trial(record)
                self.degenerate += degenerate
                side = self._degenerate_front if degenerate else self._front
                if side.add(signed_values(self._plan, record), number):
                    self._volume = None
        self._looked_at = len(self._keeper.ended)
        if new:
            self._scores = score_groups(self._plan, self._keeper.records)

    @property
    def front(self) -> list[TrialRecord]:
        """Results that no other beats in every objective, from the best by the first one on.

        Degenerate ones are among them only where all are.
        """
        return [self._keeper.records[number] for number in self._shown.keys]

    @property
    def best(self) -> TrialRecord | None:
        """The best result by the first objective, then by the next ones; no degenerate one."""
        return self._keeper.records[self._front.keys[0]] if self._front.keys else None

    @property
    def scores(self) -> list[float]:
        """Values of the objectives that the sweep is told by, as `score_sweep`; empty of none."""
        return [] if self.best is None else self._scores or list(self.best.values)

    @property
    def hypervolume(self) -> float | None:
        """Hypervolume of the front; None where the plan does not fix a reference for a pair."""
        reference = fixed_reference(self._plan)
        if reference is None or not self._shown.keys:
            return None
        if self._volume is None:
            self._volume = hypervolume(self._shown.vectors, reference)
        return self._volume

    @property
    def _shown(self) -> Front:
        return self._front if self._front.keys else self._degenerate_front


def results_of(records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
    """Trials that count as results, by number."""
    return [records[number] for number in sorted(records) if is_result(records[number])]


def broken_of(records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
    """Trials that finished at full budget and break a constraint."""
    ordered = (records[number] for number in sorted(records))
    return [item for item in ordered if item.state == "COMPLETE" and item.violations]


def is_degenerate_trial(item: TrialRecord) -> bool:
    """Whether the last evaluation of a trial was no better than an answer that ignores the image.

    Evaluations of an earlier version hold no baselines, and are not judged.
    """
    return is_degenerate(item.history.get(item.step, {}))


def learned_results(records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
    """Results that are not degenerate, by number; all of them where every one is."""
    done = results_of(records)
    return [item for item in done if not is_degenerate_trial(item)] or done


def signed_values(plan: SweepPlan, item: TrialRecord) -> tuple[float, ...]:
    """Objective values of a finished trial, signed so that smaller is better."""
    return tuple(o.sign * v for o, v in zip(plan.recipe.objectives, item.values, strict=True))


def best_trial(plan: SweepPlan, records: Mapping[int, TrialRecord]) -> TrialRecord | None:
    """The best result by the first objective, among equals by the next ones; no degenerate one.

    Of a sweep with replicates the first such result of the configuration with the best mean.
    """
    groups = measure_groups(plan, records)
    if groups is not None and groups.groups:
        ordered = (records[number] for group in groups.groups for number in group.trials)
        return next((item for item in ordered if not is_degenerate_trial(item)), None)
    done = [item for item in results_of(records) if not is_degenerate_trial(item)]
    return min(done, key=lambda item: (signed_values(plan, item), item.number), default=None)


def score_sweep(plan: SweepPlan, records: Mapping[int, TrialRecord]) -> list[float]:
    """Values of the objectives that a sweep is told by; empty where there is no result.

    Those of the best trial; of a sweep with replicates the means over the seeds of the
    configuration with the best mean.
    """
    best = best_trial(plan, records)
    return [] if best is None else score_groups(plan, records) or list(best.values)


def front_trials(plan: SweepPlan, records: Mapping[int, TrialRecord]) -> list[TrialRecord]:
    """Results that no other beats in every objective, from the best by the first one on.

    Degenerate ones are among them only where all are. Of a sweep with replicates the first results
    of the configurations whose means no other one beats.
    """
    groups = measure_groups(plan, records)
    if groups is not None and groups.groups:
        return [records[group.trials[0]] for group in groups.groups if group.front]
    done = learned_results(records)
    return [done[index] for index in front([signed_values(plan, item) for item in done])]


def fixed_reference(plan: SweepPlan) -> tuple[float, float] | None:
    """The reference point of two objectives, signed; None where the plan does not give it whole."""
    signed = [o.sign * o.reference for o in plan.recipe.objectives if o.reference is not None]
    if len(plan.recipe.objectives) != 2 or len(signed) != 2:
        return None
    return signed[0], signed[1]


def hypervolumes(
    plan: SweepPlan, records: Mapping[int, TrialRecord]
) -> tuple[tuple[float, float], list[float]] | None:
    """Hypervolume of the front after each result that may be on it, in the order of their numbers.

    Returns:
        The reference point and the values; None where there are not two objectives, or no result.
        A reference that the recipe leaves out is the worst value of all results.
    """
    objectives = plan.recipe.objectives
    done = learned_results(records)
    if len(objectives) != 2 or not done:
        return None
    vectors = [signed_values(plan, item) for item in done]
    worst = [
        max(vector[axis] for vector in vectors) if o.reference is None else o.sign * o.reference
        for axis, o in enumerate(objectives)
    ]
    reference = (objectives[0].sign * worst[0], objectives[1].sign * worst[1])
    return reference, growing_hypervolume(vectors, worst)


def growing_hypervolume(vectors: list[tuple[float, ...]], reference: Vector) -> list[float]:
    """Hypervolume of the first vector, the first two, and so on; computed where the front changes.

    Args:
        vectors: Pairs, smaller is better.
        reference: The pair that bounds the area.
    """
    values: list[float] = []
    best = Front()
    for number, vector in enumerate(vectors):
        changed = best.add(vector, number)
        values.append(hypervolume(best.vectors, reference) if changed else values[-1])
    return values
