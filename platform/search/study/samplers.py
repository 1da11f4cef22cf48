"""Points of new trials: proposed by Optuna's samplers, seeded trial by trial, none tried twice."""

import copy
import hashlib
import json
import random
import warnings
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import optuna
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ...config.recipes import ConfigError
from ..sweep_file.plan import SweepPlan
from ..sweep_file.schema import Sampler
from ..sweep_file.space import Point, Space
from .optuna_internals import FIXED_PARAMS, RELATIVE_PARAMS, set_system_attributes, study_of
from .replication import REPLICATE

_BY_HAND = "by_hand"

# Sampler attempts before falling back to random, then to any untried point.
_SAMPLER_ATTEMPTS = 3
_RANDOM_ATTEMPTS = 64


def _random(sampler: Sampler, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


_SAMPLERS: dict[str, Callable[[Sampler, int], BaseSampler]] = {
    "tpe": lambda sampler, seed: TPESampler(
        seed=seed,
        n_startup_trials=sampler.startup,
        multivariate=True,
        group=True,
        constant_liar=True,
    ),
    "nsgaii": lambda sampler, seed: NSGAIISampler(seed=seed, population_size=sampler.population),
    "nsgaiii": lambda sampler, seed: NSGAIIISampler(seed=seed, population_size=sampler.population),
    "random": _random,
    "gp": lambda sampler, seed: GPSampler(seed=seed, n_startup_trials=sampler.startup),
    # Their points are queued; only what such a point leaves out is drawn.
    "grid": _random,
    "listed": _random,
}
"""`sampler.name` -> Optuna's sampler, of the section and a trial's seed."""


def build_sampler(sampler: Sampler, number: int, draw: int = 0) -> BaseSampler:
    """Optuna's sampler for one trial.

    Args:
        sampler: Name, seed and sizes.
        number: The trial it proposes for.
        draw: How often a proposal for this trial was turned down.
    """
    with warnings.catch_warnings():
        # Some of them, and multivariate sampling, are new, of which Optuna warns.
        warnings.simplefilter("ignore")
        return _SAMPLERS[sampler.name](sampler, _seed(sampler, number, draw))


def ask(
    study: optuna.Study,
    sampler: Sampler,
    space: Space,
    *,
    number: int,
    tried: AbstractSet[str],
    seconds: Callable[[Point], float] | None = None,
) -> Trial:
    """Begin a trial with an untried point; with a tried one only where none is left.

    A training repeats its result, so a point that comes again would cost a trial and tell nothing;
    Optuna's samplers do propose some again where a space has few. A point is proposed on a copy of
    the study and queued whole: a trial's parameters cannot be taken back.

    Args:
        study: The sweep's study.
        sampler: The sweep's sampler.
        space: What it draws from.
        number: The trial's number.
        tried: `key_of` of the points of all trials.
        seconds: Expected time of a trial, by which one of `sampler.candidates` proposals is
            chosen; None takes the first one.
    """
    study.sampler = build_sampler(sampler, number)
    trials = study.get_trials(deepcopy=False)
    queued = [trial for trial in trials if trial.state == TrialState.WAITING]
    points = [space.decode(trial.system_attrs[FIXED_PARAMS]) for trial in queued]
    if not points or not space.is_whole(points[0]):
        later = {key_of(point) for point in points if space.is_whole(point)}
        known = tried | later
        merged = merge_replicates(trials)
        attributes = _propose(study.directions, merged, sampler, space, number, known)
        if seconds is not None and sampler.candidates > 1:
            proposals = [attributes]
            for draw in range(1, sampler.candidates):
                other = sampler.model_copy(update={"seed": _seed(sampler, number, -draw)})
                proposals.append(_propose(study.directions, merged, other, space, number, known))
            # Each is the sampler's best by its own model: of equal promise, as far as it knows.
            attributes = min(proposals, key=lambda item: seconds(space.decode(item[FIXED_PARAMS])))
        if queued:
            set_system_attributes(study, queued[0], attributes)
        else:
            study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=attributes))
    return study.ask()


def merge_replicates(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials as a sampler should see them: a configuration once, with the mean of its seeds.

    Args:
        trials: All trials of a study in their order.

    Returns:
        As many: those that repeat a configuration count as failed, which samplers pass over.
    """
    values: dict[int, list[Sequence[float]]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            original = trial.user_attrs.get(REPLICATE, {"of": trial.number})["of"]
            values.setdefault(original, []).append(trial.values)
    merged = []
    for trial in trials:
        if REPLICATE in trial.user_attrs:
            trial = copy.copy(trial)
            trial.values, trial.state = None, TrialState.FAIL
            trial.datetime_complete = trial.datetime_complete or trial.datetime_start
        elif len(several := values.get(trial.number, [])) > 1:
            trial = copy.copy(trial)
            trial.values = [sum(axis) / len(several) for axis in zip(*several, strict=True)]
        merged.append(trial)
    return merged


def enqueue_points(study: optuna.Study, space: Space, points: Sequence[Point]) -> None:
    """Queue fixed points that an earlier start did not queue.

    Args:
        study: The sweep's study.
        space: Its space.
        points: All fixed points, in the order in which they are tried.
    """
    queued = {
        frozen.user_attrs["point"]
        for frozen in study.get_trials(deepcopy=False)
        if "point" in frozen.user_attrs
    }
    for index, point in enumerate(points):
        if index not in queued:
            study.enqueue_trial(space.encode(point), user_attrs={"point": index})


def enqueue_by_hand(
    study: optuna.Study, space: Space, points: Sequence[Point], *, first: int
) -> None:
    """Queue points that were given by hand and that an earlier start did not queue.

    Args:
        study: The sweep's study.
        space: Its space.
        points: The points, in their order.
        first: How many were given before them.
    """
    queued = {
        frozen.user_attrs[_BY_HAND]
        for frozen in study.get_trials(deepcopy=False)
        if _BY_HAND in frozen.user_attrs
    }
    for index, point in enumerate(points, start=first):
        if f"point {index}" not in queued:
            study.enqueue_trial(space.encode(point), user_attrs={_BY_HAND: f"point {index}"})


def key_of(point: Point) -> str:
    """The same text for the same point."""
    return json.dumps(point, sort_keys=True)


def _seed(sampler: Sampler, number: int, draw: int) -> int:
    text = f"{sampler.seed}:{number}" + (f":{draw}" if draw else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _propose(
    directions: Sequence[StudyDirection],
    trials: Sequence[FrozenTrial],
    sampler: Sampler,
    space: Space,
    number: int,
    known: AbstractSet[str],
) -> dict[str, Any]:
    """An unknown point: the sampler's, else a random one, else any that is left.

    Returns:
        System attributes of the trial: the point as `FIXED_PARAMS`, and what the sampler remembers
        of its proposal, such as the generation. Of a known point where there is no other.
    """
    random_sampler = sampler.model_copy(update={"name": "random"})
    queued = [trial for trial in trials if trial.state == TrialState.WAITING]
    remembered: dict[str, Any] = {}
    proposal: dict[str, Any] = {}
    # A Gaussian process is slow to fit, and finds the same point whatever its seed.
    attempts = 1 if sampler.name == "gp" else _SAMPLER_ATTEMPTS
    for draw in range(attempts + _RANDOM_ATTEMPTS):
        # A random draw looks at no trial, which makes it cheap.
        by_sampler = draw < attempts
        proposer = build_sampler(sampler if by_sampler else random_sampler, number, draw)
        proposal = _rehearse(directions, trials if by_sampler else queued, proposer, space)
        if key_of(space.decode(proposal[FIXED_PARAMS])) not in known:
            return remembered | proposal
        if by_sampler:
            # A replacement belongs to the generation of the proposal, and has values of its own.
            remembered = {n: value for n, value in proposal.items() if RELATIVE_PARAMS not in n}
    fixed = space.decode(queued[0].system_attrs[FIXED_PARAMS]) if queued else {}
    points = [branch | fixed for branch in space.branches() or () if _agree(branch, fixed)]
    left = [point for point in points if not space.is_whole(point) or key_of(point) not in known]
    if left:
        point = random.Random(_seed(sampler, number, 0)).choice(left)
        attributes = {FIXED_PARAMS: space.encode(point)}
        trial = create_trial(state=TrialState.WAITING, system_attrs=attributes)
        proposal = _rehearse(directions, [trial], build_sampler(random_sampler, number), space)
    return remembered | proposal


def _agree(one: Point, other: Point) -> bool:
    return all(one.get(key, value) == value for key, value in other.items())


def _rehearse(
    directions: Sequence[StudyDirection],
    trials: Sequence[FrozenTrial],
    sampler: BaseSampler,
    space: Space,
) -> dict[str, Any]:
    """System attributes that a study of these trials would give its next trial."""
    study = study_of(trials, directions, sampler)
    asked = study.ask()
    point = space.draw(asked)
    attributes = study.get_trials(deepcopy=False)[asked.number].system_attrs
    return {**attributes, FIXED_PARAMS: space.encode(point)}


def random_points(plan: SweepPlan, count: int) -> list[Point]:
    """Draw random points of a sweep's space; the same for the same seed.

    Raises:
        ConfigError: Where the space has fewer.
    """
    sampler = plan.recipe.sampler.model_copy(update={"name": "random"})
    space = plan.recipe.space
    few = space.few_points()
    if few is not None and len(few) < count:
        raise ConfigError(f"trials: got {count}: the space has no more than {len(few)} points")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    points: dict[str, Point] = {}
    for number in range(count):
        trial = ask(study, sampler, space, number=number, tried=points.keys())
        point = space.draw(trial)
        points[key_of(point)] = point
    return list(points.values())
