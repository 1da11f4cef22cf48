"""Who proposes points: Optuna's samplers, seeded trial by trial; a point is tried once."""

import hashlib
import json
import random
import warnings
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from .recipe import Sampler
from .space import Point, Space

# So often a sampler is asked for a point, then chance; then one that is left is taken.
_DRAWS = 4
_BLIND_DRAWS = 64
# Where Optuna keeps what a queued trial was given.
_FIXED = "fixed_params"


def build_sampler(sampler: Sampler, number: int, draw: int = 0) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for one trial.

    Args:
        sampler: Name, seed and sizes.
        number: The trial it proposes for.
        draw: How often a proposal for this trial was turned down.
    """
    seed = _seed(sampler, number, draw)
    with warnings.catch_warnings():
        # Some of them, and multivariate sampling, are new, of which Optuna warns.
        warnings.simplefilter("ignore")
        if sampler.name == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=sampler.startup,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        if sampler.name == "nsgaii":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=sampler.population)
        if sampler.name == "nsgaiii":
            return optuna.samplers.NSGAIIISampler(seed=seed, population_size=sampler.population)
        if sampler.name == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=sampler.startup)
    # `grid` and `listed` take queued points; what such a point leaves out is drawn.
    return optuna.samplers.RandomSampler(seed=seed)


def ask(
    study: optuna.Study, sampler: Sampler, space: Space, *, number: int, tried: AbstractSet[str]
) -> Trial:
    """Begin a trial whose point was not tried, where the space has one that was not.

    A training repeats its result, so a point that comes again would cost a trial and tell nothing;
    Optuna's samplers do propose some again where a space has few.

    Args:
        study: The sweep's study.
        sampler: Who proposes.
        space: What it draws from.
        number: The trial's number.
        tried: `key_of` of the points of all trials.
    """
    study.sampler = build_sampler(sampler, number)
    queued = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))[:1]
    given = space.decode(queued[0].system_attrs[_FIXED]) if queued else {}
    if space.can_repeat and tried and not space.is_whole(given):
        point = _untried(study, sampler, space, number, tried, given)
        # A point that is queued whole stays what it is, also where a crash comes before its trial.
        if point is not None and queued:
            # Nothing public adds to what was queued; a test pins this.
            study._storage.set_trial_system_attr(queued[0]._trial_id, _FIXED, space.encode(point))
        elif point is not None:
            study.enqueue_trial(space.encode(point))
    return study.ask()


def key_of(point: Point) -> str:
    """The same text for the same point."""
    return json.dumps(point, sort_keys=True)


def _seed(sampler: Sampler, number: int, draw: int) -> int:
    text = f"{sampler.seed}:{number}" + (f":{draw}" if draw else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _untried(
    study: optuna.Study,
    sampler: Sampler,
    space: Space,
    number: int,
    tried: AbstractSet[str],
    given: Point,
) -> Point | None:
    """The first proposal that was not tried: the sampler's, a random one, or any that is left.

    Args:
        study: As in `ask`.
        sampler: Likewise.
        space: Likewise.
        number: Likewise.
        tried: Likewise.
        given: What the point must have.

    Returns:
        The point; None where none was found.
    """
    trials = study.get_trials(deepcopy=False)
    blind = sampler.model_copy(update={"name": "random"})
    queued = [trial for trial in trials if trial.state == TrialState.WAITING]
    for draw in range(_DRAWS + _BLIND_DRAWS):
        # What is drawn at random looks at no trial, which makes it cheap.
        own = draw < _DRAWS
        proposer = build_sampler(sampler if own else blind, number, draw)
        point = _rehearsed(study.directions, trials if own else queued, proposer, space)
        if key_of(point) not in tried:
            return point
    left = [
        point
        for point in space.few_points() or ()
        if key_of(point) not in tried and given.items() <= point.items()
    ]
    return random.Random(_seed(sampler, number, 0)).choice(left) if left else None


def _rehearsed(
    directions: Sequence[StudyDirection],
    trials: Sequence[FrozenTrial],
    sampler: optuna.samplers.BaseSampler,
    space: Space,
) -> Point:
    """What the next trial's point would be; a trial's parameters cannot be taken back."""
    copy = optuna.create_study(directions=directions, sampler=sampler)
    for trial in trials:
        copy.add_trial(
            create_trial(
                state=trial.state,
                values=trial.values,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=trial.system_attrs,
                intermediate_values=trial.intermediate_values,
            )
        )
    return space.draw(copy.ask())
