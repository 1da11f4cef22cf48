"""Sweeps of toy trials: recipes, keepers that can be killed, and what must hold afterwards."""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import toy_trials
import yaml
from optuna.storages import BaseStorage

from spikeseg.platform.search.study import study_storage
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialReport, Verdict
from spikeseg.platform.search.sweep import SweepOptions, SweepOutcome, sweep
from spikeseg.platform.search.sweep_file.plan import SweepPlan, load_sweep
from spikeseg.platform.search.sweep_status import SweepStatus
from spikeseg.platform.search.trials.engine import TrialQueue, run_here
from spikeseg.platform.search.trials.trial_training import TrialFunction

UP = {"metric": "val/mIoU", "direction": "maximize"}
DOWN = {"metric": "energy/mJ", "direction": "minimize"}
ENDS = ("COMPLETE", "PRUNED", "FAIL")


def toy_plan(folder: Path, steps: int = 4, **changes: Any) -> SweepPlan:
    """A sweep over T, D and mask weight, `steps` evaluations a trial."""
    recipe: dict[str, Any] = {
        "name": "toy",
        "base": "shapes_tiny",
        "overrides": [f"trainer.max_steps={steps}", "trainer.evaluate_every=1"],
        "trials": 8,
        "objectives": [UP, DOWN],
        "sampler": {"name": "random", "seed": 1},
        "space": {
            "model.neuron.timesteps": {"choices": [1, 2, 4]},
            "model.neuron.levels": {"low": 1, "high": 8},
            "loss.mask_weight": {"low": 5.0, "high": 40.0, "log": True},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy.yaml"
    recipe |= changes
    if "pruner" in recipe:
        # In so few steps, rungs begin at the first one.
        recipe["pruner"] = {"grace": 1, **recipe["pruner"]}
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return load_sweep(str(path))


def listed(*levels: int, **changes: Any) -> dict[str, Any]:
    """Changes that make a sweep run just these levels, with T = 1 and mask weight 20."""
    points = [
        {"model.neuron.timesteps": 1, "model.neuron.levels": level, "loss.mask_weight": 20.0}
        for level in levels
    ]
    space = {
        "model.neuron.timesteps": {"choices": [1, 2, 4]},
        "model.neuron.levels": {"low": 1, "high": 16},
        "loss.mask_weight": {"low": 5.0, "high": 40.0, "log": True},
    }
    sampler = {"name": "listed", "seed": 1}
    return {"trials": None, "sampler": sampler, "first": points, "space": space, **changes}


class Killed(BaseException):
    """Stands for SIGKILL: nothing that runs afterwards counts."""


class DyingStorage:
    """An Optuna storage whose process is killed before its n-th write.

    Args:
        storage: The storage; it lives on.
        writes: Writes that still happen; None for all.
    """

    WRITES = (
        "create_new_study",
        "create_new_trial",
        "set_trial_param",
        "set_trial_state_values",
        "set_trial_intermediate_value",
        "set_trial_user_attr",
        "set_trial_system_attr",
    )

    def __init__(self, storage: BaseStorage, writes: int | None) -> None:
        self.storage = storage
        self.writes = writes
        self.done = 0

    def killed_storage(self) -> BaseStorage:
        """The storage with every writing method counted."""
        twin = object.__new__(type(self.storage))
        twin.__dict__ = self.storage.__dict__  # pyright: ignore[reportAttributeAccessIssue]
        for name in self.WRITES:
            setattr(twin, name, None)
        shadow = type("Dying", (type(self.storage),), {n: self._counted(n) for n in self.WRITES})
        for name in self.WRITES:
            del twin.__dict__[name]  # pyright: ignore[reportIndexIssue]
        twin.__class__ = shadow
        return twin

    def _counted(self, name: str) -> Any:
        method = getattr(type(self.storage), name)

        @functools.wraps(method)
        def write(this: Any, *arguments: Any, **named: Any) -> Any:
            if self.writes is not None and self.done >= self.writes:
                raise Killed
            self.done += 1
            return method(this, *arguments, **named)

        return write


def run(
    plan: SweepPlan, folder: Path, storage: BaseStorage, *, writes: int | None = None
) -> tuple[Keeper, int]:
    """Run a toy sweep in this process until it ends, or is killed before its n-th write.

    Returns:
        The keeper and the number of writes done.
    """
    dying = DyingStorage(storage, writes)
    opened = study_storage.open_storage
    study_storage.open_storage = lambda _: dying.killed_storage()
    try:
        keeper = Keeper(plan, folder, storage="", trials=plan.trials)
    finally:
        study_storage.open_storage = opened
    prepare = functools.partial(toy_trials.prepare, plan)
    run_here(TrialQueue(keeper, prepare, _nobody, toy_trials.toy))
    return keeper, dying.done


def silent(line: str) -> None:
    """Tell nobody."""


def run_toys(
    data: Path,
    storage: Path,
    progress: Callable[[str], None] = silent,
    *,
    show: Callable[[SweepStatus], None] | None = None,
    work: TrialFunction = toy_trials.toy,
    **options: Any,
) -> SweepOutcome:
    """A sweep of toy trials in this process; `options` are those of `SweepOptions`."""
    return sweep(
        str(storage / "toy.yaml"),
        [f"data.path={data}"],
        SweepOptions(storage=storage, **{"here": True, **options}),
        progress=progress,
        show=show,
        work=work,
    )


def _nobody(number: int, report: TrialReport, verdict: Verdict) -> None:
    """Hear nothing."""


def check_sweep(plan: SweepPlan, folder: Path, stored: optuna.Study) -> Counter[str]:
    """Everything that must hold of a sweep that has ended, whatever killed it in between.

    Returns:
        State -> trials.
    """
    trials = stored.get_trials()
    steps = plan.base.config.trainer.max_steps
    assert [t.number for t in trials] == list(range(plan.trials)), "none lost, none doubled"
    for trial in trials:
        state = trial.state.name
        assert state in ENDS, f"trial {trial.number} is {state}"
        verdict = trial.user_attrs["verdict"]
        assert verdict["state"] == state
        trained = toy_trials.trained_steps(folder / "trials" / str(trial.number))
        assert len(trained) == len(set(trained)), f"trial {trial.number} trained twice: {trained}"
        if state == "COMPLETE":
            assert trained == list(range(1, steps + 1)), "complete means full budget"
            last = trial.user_attrs[f"at:{steps}"]["metrics"]
            assert trial.values == [last[o.metric] for o in plan.recipe.objectives]
        if state == "PRUNED":
            assert verdict["step"] < steps
            assert trained == list(range(1, verdict["step"] + 1)), "stopped where it was judged"
        if state != "FAIL":
            kept = [int(k.removeprefix("at:")) for k in trial.user_attrs if k.startswith("at:")]
            assert sorted(kept) == trained, "no evaluation is missing from the study"
    return Counter(trial.state.name for trial in trials)
