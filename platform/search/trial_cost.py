"""What trials cost: device-seconds by what became of them, and the time that is left."""

from collections.abc import Iterable
from typing import Any

from .study.seconds_model import SecondsModel
from .study.study import Keeper
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan

# A model of these costs a driver the same at any number of trials.
_NEWEST = 200
_KINDS = ("finished", "pruned", "failed", "running", "waiting")


def devices_of_a_trial(plan: SweepPlan) -> float:
    """GPUs of one trial where it takes any, else CPUs."""
    resources = plan.recipe.resources
    return (resources.gpu or resources.cpu) * plan.recipe.workers_per_trial


def spent_by_state(plan: SweepPlan, records: Iterable[TrialRecord]) -> dict[str, Any]:
    """Device-seconds of a sweep by what became of its trials.

    Args:
        plan: The sweep.
        records: Its trials.

    Returns:
        `finished`, `pruned`, `failed`, `running`; `waiting`, in which trials held a device and did
        not report it as work (start of processes, judging), known of trials that were never
        interrupted; `total` of all; and `trials_with_unknown_waiting`.
    """
    names = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    spent: dict[str, float] = dict.fromkeys(_KINDS, 0.0)
    unknown = 0
    for item in records:
        spent[names.get(item.state, "running")] += item.seconds
        if item.held is not None and item.attempts <= 1:
            spent["waiting"] += max(0.0, item.held - item.seconds)
        elif item.state in names:
            unknown += 1
    devices = devices_of_a_trial(plan)
    rounded = {name: round(value * devices, 1) for name, value in spent.items()}
    total = round(sum(spent.values()) * devices, 1)
    return {**rounded, "total": total, "trials_with_unknown_waiting": unknown}


def spent_metrics(plan: SweepPlan, records: Iterable[TrialRecord]) -> dict[str, float]:
    """Device-seconds by what became of the trials, as metrics of the sweep's run."""
    spent = spent_by_state(plan, records)
    return {f"device_seconds/{name}": spent[name] for name in (*_KINDS, "total")}


def describe_spent(plan: SweepPlan, records: Iterable[TrialRecord]) -> str:
    """Where a sweep's device time went, in one sentence."""
    spent = spent_by_state(plan, records)
    parts = [f"{name} {spent[name]:.0f}" for name in _KINDS if spent[name] or name != "running"]
    unknown = spent["trials_with_unknown_waiting"]
    note = f"; waiting is unknown of {unknown} trials that were interrupted" if unknown else ""
    return f"Device-seconds: {spent['total']:.0f} ({', '.join(parts)}{note})."


def seconds_left(plan: SweepPlan, keeper: Keeper) -> float | None:
    """Seconds that the trials still to come and the rest of the running ones take, if in turns.

    Args:
        plan: The sweep.
        keeper: Its keeper.

    Returns:
        None until three trials were evaluated.
    """
    steps = plan.base.config.trainer.max_steps
    ended = [keeper.records[number] for number in keeper.ended[-_NEWEST:]]
    model = SecondsModel([*ended, *keeper.running.values()], steps=steps)
    if not model.is_ready:
        return None
    running = sum(
        model.predict(item.point) * (1 - max(item.history, default=0) / steps)
        for item in keeper.running.values()
    )
    # What is still to come is stopped as often as what was.
    usual = sum(item.seconds for item in ended) / len(ended) if ended else 0.0
    left = keeper.trials - len(keeper.ended) - len(keeper.running)
    queued = plan.points[len(keeper.records) : len(keeper.records) + max(0, left)]
    shares = usual / (sum(model.predict(item.point) for item in ended) / len(ended)) if ended else 1
    coming = sum(shares * model.predict(point) for point in queued)
    return running + coming + max(0, left - len(queued)) * usual
