"""What is compared: our keeper with each sampler and pruner, and Optuna with other tools' rules."""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from ...platform.search.study.study import Keeper
from ...platform.search.study.study_storage import MEMORY
from ...platform.search.study.trial_records import TrialReport
from ...platform.search.sweep_file.plan import SweepPlan, check_plan
from ...platform.search.sweep_file.schema import Sampler, SweepRecipe
from .search_packages import SyneTuneHalving, has_syne_tune
from .search_rules import AsyncHalving, MultiObjectiveHalving, RankMedian
from .search_worlds import EVALUATIONS, REFERENCE

_MANY_TRIALS = 10_000
_MIOU = {"metric": "val/mIoU", "direction": "maximize", "reference": REFERENCE[0]}
_ENERGY = {"metric": "energy/mJ", "direction": "minimize", "reference": REFERENCE[1]}
_RECIPE: dict[str, Any] = {
    "name": "replayed",
    "base": "shapes_tiny",
    "overrides": [f"trainer.max_steps={EVALUATIONS}", "trainer.evaluate_every=1"],
    "trials": _MANY_TRIALS,
    "objectives": [_MIOU, _ENERGY],
    "sampler": {"name": "tpe", "seed": 1},
    "space": {
        "model.neuron.timesteps": {"choices": [1, 2, 4]},
        "model.neuron.levels": {"choices": [1, 2, 4, 8]},
        "model.neuron.normalization": {"choices": ["levels", "none"]},
        "optimizer.lr": {"low": 3e-4, "high": 4e-3, "log": True},
        "loss.mask_weight": {"low": 5.0, "high": 40.0, "log": True},
    },
}


class Searcher(Protocol):
    """Proposes trainings and decides after each evaluation whether one goes on."""

    def propose(self) -> tuple[int, dict[str, Any]]:
        """Number and point of the next training."""
        ...

    def go_on(
        self, number: int, evaluation: int, measured: tuple[float, float], seconds: float
    ) -> bool:
        """Whether a training goes on; of the last evaluation the answer is not read."""
        ...


class KeeperSearcher:
    """Our own keeper, as a sweep's driver uses it, with its study in memory.

    Args:
        plan: The sweep.
        seed: Of its sampler.
    """

    def __init__(self, plan: SweepPlan, seed: int) -> None:
        sampler = plan.recipe.sampler.model_copy(update={"seed": seed})
        recipe = plan.recipe.model_copy(update={"sampler": sampler})
        self._keeper = Keeper(
            dataclasses.replace(plan, recipe=recipe),
            Path("replayed"),
            storage=MEMORY,
            trials=_MANY_TRIALS,
        )

    def propose(self) -> tuple[int, dict[str, Any]]:
        """Number and point of the next training."""
        proposal = self._keeper.next()
        assert proposal is not None
        return proposal.number, proposal.point

    def go_on(
        self, number: int, evaluation: int, measured: tuple[float, float], seconds: float
    ) -> bool:
        """Whether a training goes on."""
        metrics = {"val/mIoU": measured[0], "energy/mJ": measured[1]}
        report = TrialReport(evaluation, metrics, final=evaluation == EVALUATIONS, seconds=seconds)
        return self._keeper.report(number, report).state is None


class OptunaSearcher:
    """Optuna alone with a rule of another tool, as Tune's `OptunaSearch` uses it.

    Args:
        plan: The sweep, for its space and its objectives.
        sampler: Optuna's.
        rule: Decides at each evaluation.
    """

    def __init__(
        self,
        plan: SweepPlan,
        sampler: BaseSampler,
        rule: AsyncHalving | MultiObjectiveHalving | RankMedian | SyneTuneHalving,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = plan.recipe.space
        self._objectives = plan.recipe.objectives
        self._study = optuna.create_study(
            directions=[objective.direction for objective in self._objectives], sampler=sampler
        )
        self._rule = rule

    def propose(self) -> tuple[int, dict[str, Any]]:
        """Number and point of the next training."""
        trial = self._study.ask()
        return trial.number, self._space.draw(trial)

    def go_on(
        self, number: int, evaluation: int, measured: tuple[float, float], seconds: float
    ) -> bool:
        """Whether a training goes on."""
        values: dict[str, float] = {"val/mIoU": measured[0], "energy/mJ": measured[1]}
        vector = [o.sign * values[o.metric] for o in self._objectives]
        keeps = self._rule.go_on(number, evaluation, vector)
        if evaluation == EVALUATIONS:
            self._study.tell(number, [values[o.metric] for o in self._objectives])
            if isinstance(self._rule, RankMedian):
                self._rule.end(number)
        elif not keeps:
            self._study.tell(number, state=TrialState.PRUNED)
        return keeps


@functools.cache
def make_plan(changes: str = "", objectives: int = 2) -> SweepPlan:
    """A sweep over the worlds' space.

    Args:
        changes: What differs from TPE without a pruner, as JSON: `{"sampler": …, "pruner": …}`.
        objectives: 2 for mIoU and energy, 1 for mIoU.
    """
    asked = json.loads(changes or "{}")
    content = _RECIPE | {
        "sampler": _RECIPE["sampler"] | asked.get("sampler", {}),
        "pruner": asked.get("pruner", {"rule": "none"}),
        "objectives": _RECIPE["objectives"][:objectives],
    }
    return check_plan(SweepRecipe.model_validate(content), {}, "replayed")


def _ours(
    sampler: str, pruner: str = "none", objectives: int = 2, **fields: Any
) -> Callable[[int], Searcher]:
    """Our keeper; `fields` are of the sampler where it has them, else of the pruner."""
    of_sampler = {k: v for k, v in fields.items() if k in Sampler.model_fields}
    of_pruner = {k: v for k, v in fields.items() if k not in of_sampler}
    changes = {
        "sampler": {"name": sampler, **of_sampler},
        "pruner": {"rule": pruner, **of_pruner},
    }
    plan = functools.partial(make_plan, json.dumps(changes), objectives)
    return lambda seed: KeeperSearcher(plan(), seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _other(
    sampler: Callable[[int], BaseSampler], rule: Callable[[], Any], objectives: int = 2
) -> Callable[[int], Searcher]:
    def build(seed: int) -> Searcher:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan = make_plan("", objectives)
            return OptunaSearcher(plan, sampler(seed), rule())

    return build


SEVERAL: dict[str, Callable[[int], Searcher]] = {
    "random": _ours("random"),
    "tpe": _ours("tpe"),
    "tpe, startup 5": _ours("tpe", startup=5),
    "tpe, 3 candidates": _ours("tpe", candidates=3),
    "nsgaii": _ours("nsgaii"),
    "nsgaiii": _ours("nsgaiii"),
    "gp": _ours("gp"),
    "tpe + non_dominated": _ours("tpe", "non_dominated"),
    "tpe + non_dominated, grace 1": _ours("tpe", "non_dominated", grace=1),
    "tpe + non_dominated, grace 1, eta 4": _ours("tpe", "non_dominated", grace=1, eta=4),
    "random + non_dominated, grace 1": _ours("random", "non_dominated", grace=1),
    "nsgaii + non_dominated, grace 1": _ours("nsgaii", "non_dominated", grace=1),
    "OptunaSearch + ASHA": _other(_tpe, AsyncHalving),
    "OptunaSearch + MOASHA": _other(_tpe, MultiObjectiveHalving),
    "OptunaSearch + rank median": _other(_tpe, RankMedian),
    "random + MOASHA": _other(_random, MultiObjectiveHalving),
}
"""Name -> searcher of a seed, for mIoU and energy; the first is what all are compared with."""
if has_syne_tune():
    SEVERAL |= {
        "OptunaSearch + Syne Tune's MOASHA": _other(_tpe, SyneTuneHalving),
        "random + Syne Tune's MOASHA": _other(_random, SyneTuneHalving),
    }
ONE: dict[str, Callable[[int], Searcher]] = {
    "random": _ours("random", objectives=1),
    "tpe": _ours("tpe", objectives=1),
    "gp": _ours("gp", objectives=1),
    "tpe + halving": _ours("tpe", "halving", 1),
    "tpe + halving, grace 1": _ours("tpe", "halving", 1, grace=1),
    "tpe + halving, grace 1, eta 4": _ours("tpe", "halving", 1, grace=1, eta=4),
    "tpe + median, grace 1": _ours("tpe", "median", 1, grace=1),
    "random + halving, grace 1": _ours("random", "halving", 1, grace=1),
    "OptunaSearch + ASHA": _other(_tpe, AsyncHalving, 1),
}
"""The same for mIoU alone."""
