"""Who proposes points: Optuna's samplers, seeded trial by trial; a point is tried once."""

import hashlib
import json
import random
import warnings
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ...config.recipes import ConfigError
from ..sweep_file.plan import SweepPlan
from ..sweep_file.schema import Sampler
from ..sweep_file.space import Point, Space

# So often a sampler is asked for a point, then chance; then one that is left is taken.
_DRAWS = 3
_BLIND_DRAWS = 64
# Where Optuna keeps what a queued trial was given.
_FIXED = "fixed_params"
# Where samplers keep what they proposed, for others to keep away from.
_VALUES = ":relative_params"


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
    Optuna's samplers do propose some again where a space has few. A point is proposed on a copy of
    the study and queued whole: a trial's parameters cannot be taken back.

    Args:
        study: The sweep's study.
        sampler: Who proposes.
        space: What it draws from.
        number: The trial's number.
        tried: `key_of` of the points of all trials.
    """
    study.sampler = build_sampler(sampler, number)
    trials = study.get_trials(deepcopy=False)
    queued = [trial for trial in trials if trial.state == TrialState.WAITING]
    given = [space.decode(trial.system_attrs[_FIXED]) for trial in queued]
    if not given or not space.is_whole(given[0]):
        later = {key_of(point) for point in given if space.is_whole(point)}
        known = tried | later
        attributes = _proposal(study.directions, trials, sampler, space, number, known)
        if queued:
            for name, value in attributes.items():
                # Nothing public adds to what was queued; a test pins this.
                study._storage.set_trial_system_attr(queued[0]._trial_id, name, value)
        else:
            study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=attributes))
    return study.ask()


def key_of(point: Point) -> str:
    """The same text for the same point."""
    return json.dumps(point, sort_keys=True)


def _seed(sampler: Sampler, number: int, draw: int) -> int:
    text = f"{sampler.seed}:{number}" + (f":{draw}" if draw else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _proposal(
    directions: Sequence[StudyDirection],
    trials: Sequence[FrozenTrial],
    sampler: Sampler,
    space: Space,
    number: int,
    known: AbstractSet[str],
) -> dict[str, Any]:
    """A point that is not known: the sampler's, a random one, or one that is left.

    Returns:
        What Optuna keeps of the trial: the point under `_FIXED`, and what the sampler remembers of
        it, such as the generation. A known point where no other is found.
    """
    blind = sampler.model_copy(update={"name": "random"})
    queued = [trial for trial in trials if trial.state == TrialState.WAITING]
    proposed: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    # A Gaussian process is slow to fit, and finds the same point whatever its seed.
    draws = 1 if sampler.name == "gp" else _DRAWS
    for draw in range(draws + _BLIND_DRAWS):
        # What is drawn at random looks at no trial, which makes it cheap.
        own = draw < draws
        proposer = build_sampler(sampler if own else blind, number, draw)
        proposed = _rehearsed(directions, trials if own else queued, proposer, space)
        if key_of(space.decode(proposed[_FIXED])) not in known:
            return kept | proposed
        if own:
            # Whoever replaces a proposal belongs to its generation, and not to its values.
            kept = {name: value for name, value in proposed.items() if _VALUES not in name}
    given = space.decode(queued[0].system_attrs[_FIXED]) if queued else {}
    merged = [branch | given for branch in space.branches() or () if _agree(branch, given)]
    left = [point for point in merged if not space.is_whole(point) or key_of(point) not in known]
    if left:
        point = random.Random(_seed(sampler, number, 0)).choice(left)
        fixed = {_FIXED: space.encode(point)}
        one = create_trial(state=TrialState.WAITING, system_attrs=fixed)
        proposed = _rehearsed(directions, [one], build_sampler(blind, number), space)
    return kept | proposed


def _agree(one: Point, other: Point) -> bool:
    return all(one.get(key, value) == value for key, value in other.items())


def _rehearsed(
    directions: Sequence[StudyDirection],
    trials: Sequence[FrozenTrial],
    sampler: optuna.samplers.BaseSampler,
    space: Space,
) -> dict[str, Any]:
    """What a study of these trials would keep of its next one."""
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
    asked = copy.ask()
    point = space.draw(asked)
    kept = copy.get_trials(deepcopy=False)[asked.number].system_attrs
    return {**kept, _FIXED: space.encode(point)}


def random_points(plan: SweepPlan, count: int) -> list[Point]:
    """Points of a space, drawn without regard to results; the same for the same seed.

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
