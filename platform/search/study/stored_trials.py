"""Read a trial's record from its study, checked: others may have written into the database."""

import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel

from ...config.errors import ConfigError
from ...config.run_names import shown
from ...config.stored_json import check_stored
from ..sweep_file.schema import Limit, SweepRecipe
from ..sweep_file.space import Space
from .replication import find_origin
from .study_storage import check_storage_address, open_study, read_trials
from .trial_records import VERDICT, TrialRecord

SPENT = "seconds_without_evaluation"
"""Attribute that holds time which led to no evaluation."""
EVALUATION = "at:"
"""Begins the attribute of an evaluation; its step follows."""
RUNG = "rung:"
"""Begins the attribute of a promotion; its step follows."""


class _Evaluation(BaseModel):
    metrics: dict[str, float]
    seconds: float


class StoredVerdict(BaseModel):
    """The decision that ended a trial."""

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    reason: str
    step: int


def read_record(
    trial: FrozenTrial,
    space: Space,
    *,
    wanted: Sequence[str],
    constraints: Sequence[Limit],
    where: str,
) -> tuple[TrialRecord, StoredVerdict | None, list[int]]:
    """Read one trial.

    Args:
        trial: As Optuna has it.
        space: The sweep's space.
        wanted: Metrics that every evaluation must hold.
        constraints: The sweep's constraints.
        where: What errors call the study.

    Returns:
        Its record; the decision that ended it, which Optuna may not know yet; the rungs that it
        passed.

    Raises:
        ConfigError: Where it is no trial of this sweep; names trial and key.
    """
    where = f"{where}: trial {trial.number}"
    attributes = trial.user_attrs
    evaluations = {
        step: check_stored(attributes[key], _Evaluation, f"{where}: {key}")
        for key, step in sorted(_steps(attributes, EVALUATION, where), key=lambda pair: pair[1])
    }
    for step, evaluation in evaluations.items():
        for name in wanted:
            if name not in evaluation.metrics:
                raise ConfigError(f"{where}: {EVALUATION}{step}: {name} is not among its metrics")
    history = {step: item.metrics for step, item in evaluations.items()}
    verdict = None
    if "verdict" in attributes:
        verdict = check_stored(attributes["verdict"], StoredVerdict, f"{where}: verdict")
    last = None if verdict is None else history.get(verdict.step)
    values = tuple(trial.values or ()) if trial.state == TrialState.COMPLETE else ()
    record = TrialRecord(
        number=trial.number,
        state=trial.state.name,
        point=_point(trial, space, where),
        history=history,
        seconds=sum(item.seconds for item in evaluations.values())
        + check_stored(attributes.get(SPENT, 0.0), float, f"{where}: {SPENT}"),
        reason="" if verdict is None else verdict.reason,
        step=0 if verdict is None else verdict.step,
        attempts=check_stored(attributes.get("attempts", 1), int, f"{where}: attempts"),
        violations=violations(constraints, last) if last else (),
        values=values,
        held=None if trial.duration is None else trial.duration.total_seconds(),
    )
    return record, verdict, [step for _, step in _steps(attributes, RUNG, where)]


def check_ended(folder: Path, known: Set[int]) -> None:
    """Refuse a study without trials that have ended: new ones would take their folders.

    Args:
        folder: The sweep's folder.
        known: Numbers of the study's trials.

    Raises:
        ConfigError: Names a trial that ended and is not in the study.
    """
    folders = [path.parent.name for path in folder.glob(f"trials/*/{VERDICT}")]
    unknown = sorted({int(name) for name in folders if name.isdecimal()} - known)
    if unknown:
        raise ConfigError(
            f"{folder}: trial {unknown[0]} has ended, and the study does not know it: it "
            "is not, or not all of, the study that this sweep began with"
        )


def read_records(
    address: str, name: str, recipe: SweepRecipe, where: str, *, first_seed: int
) -> dict[int, TrialRecord]:
    """All trials of a sweep that were begun, by number; nothing is written.

    Args:
        address: Where its study is stored.
        name: The sweep's name.
        recipe: The sweep.
        where: What errors call the study.
        first_seed: Seed of the sweep's base, which first trainings of its configurations have.

    Raises:
        ConfigError: Where there is no such study, or a trial is not this sweep's.
    """
    if not check_storage_address(address, where):
        raise ConfigError(f"{where}: there is none yet")
    study = open_study(address, name, [objective.direction for objective in recipe.objectives])
    wanted = [item.metric for item in (*recipe.objectives, *recipe.constraints)]
    records = {}
    for trial in read_trials(study, where):
        if trial.state == TrialState.WAITING:
            continue
        record, verdict, _ = read_record(
            trial, recipe.space, wanted=wanted, constraints=recipe.constraints, where=where
        )
        if verdict is not None:
            record.state = verdict.state
        if recipe.replicates is not None:
            its = f"{where}: trial {trial.number}"
            record.original, record.point["seed"] = find_origin(trial.user_attrs, first_seed, its)
        records[trial.number] = record
    return records


def find_missing_metric(metrics: Mapping[str, float], wanted: Sequence[str]) -> str | None:
    """Say which metric an evaluation lacks or has no finite value of; None where all are there.

    Args:
        metrics: Name -> value.
        wanted: Names that it must have.
    """
    for name in wanted:
        if name not in metrics:
            return f"{name} is not among the metrics of the evaluation"
        if not math.isfinite(metrics[name]):
            return f"{name} is {metrics[name]}"
    return None


def violations(limits: Sequence[Limit], metrics: Mapping[str, float]) -> tuple[str, ...]:
    """The constraints that an evaluation breaks."""
    return tuple(str(limit) for limit in limits if limit.excess(metrics[limit.metric]) > 0)


def _steps(attributes: Mapping[str, Any], begin: str, where: str) -> list[tuple[str, int]]:
    """The attributes that begin so, each with the step that follows."""
    keys = [key for key in attributes if key.startswith(begin)]
    for key in keys:
        if not key.removeprefix(begin).isdecimal():
            raise ConfigError(f"{where}: {shown(key)}: must be {begin} and a training step")
    return [(key, int(key.removeprefix(begin))) for key in keys]


def _point(trial: FrozenTrial, space: Space, where: str) -> dict[str, Any]:
    try:
        return space.decode(trial.params)
    except StopIteration:
        text = shown(str(trial.params))
        raise ConfigError(
            f"{where}: params: got {text}: not a point of the sweep's space"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{where}: params: not a point of the sweep's space ({error})") from error
