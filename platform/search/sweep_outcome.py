"""What a sweep left behind, as its caller gets it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..train.tracked_training import LOST
from .study.study import Keeper
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan
from .sweep_groups import Groups, describe_leader, measure_groups
from .sweep_results import why_no_result
from .sweep_standing import best_trial, front_trials, learned_results
from .sweep_tracking import SweepRecord
from .sweep_verdict import describe_lead
from .trial_cost import describe_spent


@dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    Attributes:
        number: Its number in the study.
        params: Dotted key -> value.
        values: Objective -> value.
        folder: Its run folder; `spikeseg evaluate` takes it.
    """

    number: int
    params: dict[str, Any]
    values: dict[str, float]
    folder: Path


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep left behind.

    Attributes:
        name: The sweep's name; `--resume NAME` takes it.
        folder: Its folder: study, trials, results table, best recipe, figures.
        best: The best trial by the first objective; None where none finished.
        front: Trials that no other beats in every objective.
        counts: State -> trials.
        missing: Where there is no best trial, why; else empty.
        lost: Sentences about records that could not be kept.
        leader: Which is highest and whether that may be noise; with replicates which configuration
            leads and what it cannot be told from.
        repeated: Whether configurations were trained with several seeds.
        spent: Where the device time went.
    """

    name: str
    folder: Path
    best: TrialResult | None
    front: list[TrialResult]
    counts: dict[str, int]
    missing: str
    lost: tuple[str, ...] = ()
    leader: str = ""
    repeated: bool = False
    spent: str = ""


def describe_outcome(plan: SweepPlan, keeper: Keeper, record: SweepRecord) -> SweepOutcome:
    """The outcome of a sweep whose trials have all ended.

    Args:
        plan: The sweep.
        keeper: Its keeper.
        record: Its run in MLflow.
    """
    best = best_trial(plan, keeper.records)
    groups = measure_groups(plan, keeper.records)
    states = [item.state for item in keeper.records.values()]
    return SweepOutcome(
        name=keeper.folder.name,
        folder=keeper.folder,
        best=None if best is None else _result(plan, keeper, best),
        front=[_result(plan, keeper, item) for item in front_trials(plan, keeper.records)],
        counts={state: states.count(state) for state in sorted(set(states))},
        missing=why_no_result(keeper.records),
        lost=tuple(_list_lost(keeper.folder, record)),
        leader="" if best is None else _describe_lead(plan, keeper, groups),
        repeated=groups is not None,
        spent=describe_spent(plan, keeper.records.values()),
    )


def _describe_lead(plan: SweepPlan, keeper: Keeper, groups: Groups | None) -> str:
    if groups is not None:
        return describe_leader(plan, groups)
    results = learned_results(keeper.records)
    return f"by {plan.recipe.objectives[0].metric} {describe_lead(plan, results)}"


def _result(plan: SweepPlan, keeper: Keeper, item: TrialRecord) -> TrialResult:
    names = [objective.metric for objective in plan.recipe.objectives]
    return TrialResult(
        number=item.number,
        params=dict(item.point),
        values=dict(zip(names, item.values, strict=True)),
        folder=keeper.folder / "trials" / str(item.number),
    )


def _list_lost(folder: Path, record: SweepRecord) -> Iterator[str]:
    """What of the records of a sweep and its trials could not be kept."""
    if record.journal.dropped:
        yield f"{record.journal.dropped} records of the sweep: {record.journal.first_drop}"
    for file in sorted(folder.glob(f"trials/*/{LOST}")):
        yield f"of trial {file.parent.name} {file.read_text()}"
