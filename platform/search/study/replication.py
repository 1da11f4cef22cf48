"""Which configuration is trained again with which seed, and how many trainings that makes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import BaseModel

from ...config.stored_json import check_stored
from ..groups.comparisons import Values
from ..groups.sequential_stop import StopRule
from ..sweep_file.schema import Objective, Replicates
from .pareto import Vector, crowding, hypervolume, layers
from .trial_records import TrialRecord

REPLICATE = "replicate"
"""Attribute of a trial that repeats the configuration of another one with another seed."""


class StoredReplicate(BaseModel):
    """What a trial repeats, and its seed."""

    of: int
    seed: int


class Replicate(NamedTuple):
    """A training to start.

    Attributes:
        original: First trial of the configuration.
        seed: Seed of this training.
    """

    original: int
    seed: int


class Replication:
    """Decides from a sweep's trials which of them are repeated; holds no state of its own.

    Without `best`, every configuration whose first training is a result is repeated, and its first
    training is one of its group. With `best`, all configurations are trained once, then the best
    ones and the reference (trial 0) `seeds` times more: the training by which a configuration was
    chosen says too much good of it, and is not one of its group.

    Args:
        replicates: The sweep's section.
        objectives: The sweep's objectives.
        seed: Seed of the base experiment.
    """

    def __init__(
        self, replicates: Replicates, objectives: Sequence[Objective], *, seed: int
    ) -> None:
        self._replicates = replicates
        self._objectives = objectives
        self.first_seed = seed

    @property
    def seeds(self) -> list[int]:
        """Seeds of a group."""
        begin = self.first_seed + (self._replicates.best is not None)
        return list(range(begin, begin + self._replicates.seeds))

    def next(self, records: Mapping[int, TrialRecord], configurations: int) -> Replicate | None:
        """The next training to start, seed by seed; None where none is, or not yet.

        Args:
            records: Trials by number.
            configurations: Configurations of the whole sweep.
        """
        begun = _begun(records)
        repeated = self._repeated(records, configurations)
        if not repeated:
            return None
        stopped = self.stopped(records, configurations)
        for seed in self.seeds:
            for original in repeated:
                missing = (original, seed) not in begun and seed != self._own_seed
                if missing and original not in stopped:
                    return Replicate(original, seed)
        return None

    def count(self, records: Mapping[int, TrialRecord], configurations: int) -> int:
        """Repeated trainings of the whole sweep, as far as its results tell by now.

        Args:
            records: Trials by number.
            configurations: Configurations of the whole sweep.
        """
        begun = _begun(records)
        each = len(self.seeds) - (self._own_seed is not None)
        repeated = self._repeated(records, configurations)
        stopped = self.stopped(records, configurations) if repeated else {}
        number = sum(
            sum(original == item for item, _ in begun) if original in stopped else each
            for original in repeated
        )
        # A sweep that was given more trials may repeat other configurations than it did before.
        number += sum(original not in repeated for original, _ in begun)
        firsts = [item for item in records.values() if item.original is None]
        open_ones = configurations - sum(item.state in _ENDS for item in firsts)
        if self._replicates.best is None:
            return number + each * open_ones
        if open_ones:
            return number + each * min(self._replicates.best, configurations)
        return number

    def stopped(self, records: Mapping[int, TrialRecord], configurations: int) -> dict[int, int]:
        """Groups that get no further seed, each with a group that is clearly better.

        Args:
            records: Trials by number.
            configurations: Configurations of the whole sweep.
        """
        if self._replicates.stop_error is None:
            return {}
        most = self._replicates.best
        rule = StopRule(
            error=self._replicates.stop_error,
            replicates=self._replicates.seeds,
            groups=configurations if most is None else min(configurations, most + 1),
        )
        values = self.values(records, self._repeated(records, configurations))
        found = {number: rule.find_better(number, values) for number in values}
        return {number: better for number, better in found.items() if better is not None}

    def values(
        self, records: Mapping[int, TrialRecord], originals: Sequence[int]
    ) -> dict[int, list[Values]]:
        """Values of groups by seed, for each objective; larger is better.

        Args:
            records: Trials by number.
            originals: First trials of the groups.
        """
        members = self.members(records)
        return {
            original: [
                {item.point["seed"]: -o.sign * item.values[axis] for item in members[original]}
                for axis, o in enumerate(self._objectives)
            ]
            for original in originals
            if members.get(original)
        }

    def members(self, records: Mapping[int, TrialRecord]) -> dict[int, list[TrialRecord]]:
        """Results of each group by the number of its first trial, in the order of their seeds."""
        groups: dict[int, list[TrialRecord]] = {}
        for number in sorted(records):
            item = records[number]
            if not is_result(item) or (item.original is None and self._own_seed is None):
                continue
            groups.setdefault(item.group, []).append(item)
        return {
            number: sorted(items, key=lambda item: item.point["seed"])
            for number, items in sorted(groups.items())
        }

    @property
    def _own_seed(self) -> int | None:
        """Seed of the first training, where that is one of the group."""
        return self.first_seed if self._replicates.best is None else None

    def _repeated(self, records: Mapping[int, TrialRecord], configurations: int) -> list[int]:
        """First trials of the configurations that are repeated, by number or the best first."""
        firsts = [item for _, item in sorted(records.items()) if item.original is None]
        results = [item for item in firsts if is_result(item)]
        best = self._replicates.best
        if best is None:
            return [item.number for item in results]
        if sum(item.state in _ENDS for item in firsts) < configurations or not results:
            return []
        vectors = [self._signed(item) for item in results]
        known = [o.sign * o.reference for o in self._objectives if o.reference is not None]
        complete = len(known) == len(self._objectives) == 2
        order = order_by_hypervolume(vectors, known) if complete else rank_vectors(vectors)
        chosen = [results[index].number for index in order[:best]]
        reference = [0] if is_result(records[0]) and 0 not in chosen else []
        return chosen + reference

    def _signed(self, item: TrialRecord) -> Vector:
        return [o.sign * v for o, v in zip(self._objectives, item.values, strict=True)]


_ENDS = ("COMPLETE", "PRUNED", "FAIL")


def is_result(record: TrialRecord) -> bool:
    """Whether a trial counts as a result: finished at full budget, within every constraint."""
    return record.state == "COMPLETE" and not record.violations


def read_replicate(attributes: Mapping[str, Any], where: str) -> StoredReplicate | None:
    """What a trial repeats; None where it is the first of its configuration.

    Args:
        attributes: Its attributes.
        where: What errors call it.

    Raises:
        ConfigError: Where the attribute is none of ours.
    """
    if REPLICATE not in attributes:
        return None
    return check_stored(attributes[REPLICATE], StoredReplicate, f"{where}: {REPLICATE}")


def find_origin(
    attributes: Mapping[str, Any], first_seed: int, where: str
) -> tuple[int | None, int]:
    """First trial of a trial's configuration, None for a first one itself, and its seed.

    Args:
        attributes: The trial's attributes.
        first_seed: Seed of first trials.
        where: What errors call it.

    Raises:
        ConfigError: Where the attribute is none of ours.
    """
    stored = read_replicate(attributes, where)
    return (None, first_seed) if stored is None else (stored.of, stored.seed)


def begin_replicate(study: optuna.Study, replicate: Replicate) -> FrozenTrial:
    """Begin a trial with the point of another one and another seed, in one write.

    Args:
        study: The sweep's study.
        replicate: What is repeated, and the seed.
    """
    trials = study.get_trials(deepcopy=False)
    original = next(item for item in trials if item.number == replicate.original)
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params=original.params,
            distributions=original.distributions,
            user_attrs={REPLICATE: {"of": replicate.original, "seed": replicate.seed}},
        )
    )
    return study.get_trials(deepcopy=False)[-1]


def order_by_hypervolume(vectors: Sequence[Vector], reference: Vector) -> list[int]:
    """Indices of vectors, each the one that adds most to the hypervolume of those before it.

    Crowding would leave out the knee of a front, whose neighbours are near, and would keep several
    equal vectors at its ends. What adds nothing follows as `rank_vectors` has it.

    Args:
        vectors: Pairs, smaller is better.
        reference: A pair that is worse than any of interest.
    """
    chosen: list[int] = []
    rest = rank_vectors(vectors)
    while rest:
        kept = [vectors[index] for index in chosen]
        areas = [hypervolume([*kept, vectors[index]], reference) for index in rest]
        largest = max(areas)
        if largest <= hypervolume(kept, reference):
            break
        chosen.append(rest.pop(areas.index(largest)))
    return chosen + rest


def rank_vectors(vectors: Sequence[Vector]) -> list[int]:
    """Indices of vectors from the best on: by non-dominated layer, then the less crowded first.

    Args:
        vectors: Objective vectors, smaller is better.
    """
    depth = layers(vectors)
    ordered: list[int] = []
    for layer in sorted(set(depth)):
        members = [index for index, item in enumerate(depth) if item == layer]
        distance = crowding([vectors[index] for index in members])
        by_room = sorted(range(len(members)), key=lambda i: (-distance[i], members[i]))
        ordered += [members[index] for index in by_room]
    return ordered


def _begun(records: Mapping[int, TrialRecord]) -> set[tuple[int, int]]:
    """First trial and seed of every replicate that was begun."""
    return set(_pairs(records))


def _pairs(records: Mapping[int, TrialRecord]) -> Iterator[tuple[int, int]]:
    for item in records.values():
        if item.original is not None:
            yield item.original, item.point["seed"]
