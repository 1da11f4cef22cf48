"""The keeper of one sweep's study: it alone writes to Optuna; the study is the only truth.

What survives a crash is in the study: parameters, every evaluation (`at:<step>`), every promotion
(`rung:<step>`), and the decision that ends a trial (`verdict`), written before Optuna's `tell`.
"""

import bisect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from ...tracking.metric_table import is_of_earlier_rule, restore_earlier_rule
from ..sweep_file.plan import SweepPlan
from ..sweep_file.schema import Limit, Objective
from ..sweep_file.space import Point, Space
from .budget import Budget, Quota
from .optuna_internals import live_trial, quiet_optuna
from .pruners import AtRung, build_rule
from .replication import Replicate, Replication, begin_replicate, find_origin
from .samplers import ask, build_sampler, enqueue_by_hand, enqueue_points, key_of
from .seconds_model import SecondsModel
from .stored_trials import (
    EVALUATION,
    RUNG,
    SPENT,
    check_ended,
    find_missing_metric,
    read_record,
    violations,
)
from .study_storage import open_study, read_trials
from .trial_records import Proposal, TrialRecord, TrialReport, Verdict

_log = logging.getLogger(__name__)
_GO_ON = "go on"


class Keeper:
    """Proposes trials, judges their reports and ends them; not thread-safe, lives in the driver.

    Args:
        plan: The checked sweep.
        folder: The sweep's folder; trials live in `trials/<number>` below it.
        storage: sqlite file, RDB URL or journal file of the study.
        trials: Budget: trials of the whole sweep, whatever becomes of them; where it has
            replicates, configurations.

    Attributes:
        configurations: Points of the whole sweep.
        records: Trials by number.
        ended: Numbers of the trials with an end, in the order in which they ended; those that an
            earlier driver ended come first, by number.
        running: Trials without an end by number, also those that wait to be continued.

    Raises:
        ConfigError: Where the study is not this sweep's: it holds something else, or the folder
            has trials that ended and the study does not know them.
    """

    def __init__(self, plan: SweepPlan, folder: Path, *, storage: str, trials: int) -> None:
        recipe = plan.recipe
        self.folder = folder
        self.records: dict[int, TrialRecord] = {}
        self._space: Space = recipe.space
        self._objectives: Sequence[Objective] = recipe.objectives
        self._constraints: Sequence[Limit] = recipe.constraints
        self._limits: Sequence[Limit] = recipe.pruner.limits
        self._rule = build_rule(recipe.pruner)
        self._rungs = set(plan.rungs) if recipe.pruner.rule != "none" else set()
        self._sampler = recipe.sampler
        self._steps = plan.base.config.trainer.max_steps
        seconds = recipe.budget_seconds
        self._budget = None if seconds is None else Budget(seconds, steps=self._steps)
        self._is_spent = False
        self.replication: Replication | None = None
        if recipe.replicates is not None:
            seed = plan.base.config.seed
            self.replication = Replication(recipe.replicates, recipe.objectives, seed=seed)
        self._live: dict[int, Trial] = {}
        self._promoted: set[tuple[int, int]] = set()
        self._tried: set[str] = set()
        self._at_rungs: dict[int, list[AtRung]] = {step: [] for step in self._rungs}
        self.ended: list[int] = []
        self.running: dict[int, TrialRecord] = {}
        objectives = recipe.objectives
        self.study = open_study(storage, folder.name, [item.direction for item in objectives])
        with quiet_optuna():
            # For people who open the study in another tool, such as optuna-dashboard.
            self.study.set_metric_names([objective.metric for objective in objectives])
        self._interrupted = self._read_study()
        check_ended(folder, set(self.records))
        measured = (m for record in self.records.values() for m in record.history.values())
        self._earlier_rule = any(map(is_of_earlier_rule, measured))
        self._quota = Quota(plan, trials, self._tried, begun=self._count_begun())
        self.configurations = self._quota.count(self._count_begun())
        enqueue_points(self.study, self._space, plan.points[: self.configurations])

    def _count_begun(self) -> int:
        return sum(item.original is None for item in self.records.values())

    @property
    def trials(self) -> int:
        """Trials of the whole sweep; with replicates, as many as its results ask for by now.

        Once a budget is spent, those that were begun.
        """
        if self._is_spent:
            return len(self.records)
        if self.replication is None:
            return self.configurations
        return self.configurations + self.replication.count(self.records, self.configurations)

    @property
    def live(self) -> int:
        """Trials that are running now."""
        return len(self._live)

    @property
    def live_numbers(self) -> set[int]:
        """Numbers of the trials that are running now."""
        return set(self._live)

    @property
    def finished(self) -> int:
        """Trials with an end, whatever it was."""
        return len(self.ended)

    def next(self) -> Proposal | None:
        """Begin the next trial: an interrupted one, else a new one; None when none is left."""
        if self._interrupted:
            return self._resume(self._interrupted.pop(0))
        if self._is_spent or self.finished + len(self._live) >= self.trials:
            return None
        if self._budget is not None and self._budget.is_spent(self.records):
            _log.info("%s: its budget is spent after %d trials", self.folder, len(self.records))
            self._is_spent = True
            return None
        if self.replication is not None:
            replicate = self.replication.next(self.records, self.configurations)
            if replicate is not None:
                return self._replicate(replicate)
        if sum(item.original is None for item in self.records.values()) >= self.configurations:
            return None
        # A fresh sampler a trial: what it proposes depends on seed, number and the trials so far,
        # not on how often the driver was killed.
        trials = self.study.get_trials(deepcopy=False)
        waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
        begun = len(trials) - len(waiting)
        number = min(waiting, default=len(trials))
        if begun > len(self.records):
            raise RuntimeError(
                f"trial {begun - 1} was begun by somebody else: another driver, with a folder of "
                f"its own, is at work on the study {self.study.study_name}"
            )
        trial = ask(
            self.study,
            self._sampler,
            self._space,
            number=number,
            tried=self._tried,
            seconds=self._model_seconds(),
        )
        return self._start(trial, attempt=1)

    def _model_seconds(self) -> Callable[[Point], float] | None:
        """Expected seconds of a point, where the sampler is asked for several."""
        if self._sampler.candidates == 1:
            return None
        done = sum(item.state == "COMPLETE" for item in self.records.values())
        if done < self._sampler.startup:
            return None
        model = SecondsModel(self.records.values(), steps=self._steps)
        return model.predict if model.is_ready else None

    def report(self, number: int, report: TrialReport) -> Verdict:
        """Record one report of a running trial and decide whether it goes on.

        Args:
            number: The trial.
            report: What it sent.

        Returns:
            The decision, which the study has already. A trial that has ended stays as it was.
        """
        trial = self._live.get(number)
        if trial is None:
            record = self.records[number]
            assert record.state in ("COMPLETE", "PRUNED", "FAIL")
            return Verdict(record.state, record.reason, record.step)
        self._count_attempt(trial, report.attempt)
        if report.failure is not None:
            self._spend(trial, report.seconds)
            return self._end(trial, Verdict("FAIL", report.failure, self._last_step(number)))
        if self._earlier_rule:
            report = replace(report, metrics=restore_earlier_rule(report.metrics))
        wanted = (*self._objectives, *self._limits, *self._constraints)
        problem = find_missing_metric(report.metrics, [item.metric for item in wanted])
        if problem:
            self._spend(trial, report.seconds)
            return self._end(trial, Verdict("FAIL", problem, report.step))
        self._remember(trial, report)
        for limit in self._limits:
            value = report.metrics[limit.metric]
            if report.step >= limit.after and not report.final and limit.excess(value) > 0:
                reason = f"{limit.metric} is {value:.4g}, the limit is {limit}"
                return self._end(trial, Verdict("PRUNED", reason, report.step))
        if report.final:
            return self._end(trial, Verdict("COMPLETE", "full budget", report.step))
        is_first = self.records[number].original is None
        if is_first and report.step in self._rungs and (number, report.step) not in self._promoted:
            return self._judge(trial, report.step)
        return Verdict(None, _GO_ON, report.step)

    def lost(self, number: int, reason: str) -> Verdict | None:
        """Fail a trial whose process is gone for good; None where it had ended before."""
        trial = self._live.get(number)
        if trial is None:
            return None
        return self._end(trial, Verdict("FAIL", reason, self._last_step(number)))

    def add(self, points: Sequence[Point]) -> None:
        """Queue points that were given by hand; each is a trial on top of the budget.

        Args:
            points: All of them so far, in their order; those that are known are passed over.
        """
        if new := points[self._quota.added :]:
            enqueue_by_hand(self.study, self._space, new, first=self._quota.added)
            self._quota.added += len(new)
            self.configurations = self._quota.count(self._count_begun())

    def again(self, number: int) -> None:
        """Queue a running trial once more, since its process died."""
        del self._live[number]
        self._interrupted += [
            frozen for frozen in self.study.get_trials(deepcopy=False) if frozen.number == number
        ]

    def signed(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Objective vector of an evaluation, signed so that smaller is better."""
        return tuple(o.sign * metrics[o.metric] for o in self._objectives)

    def _judge(self, trial: Trial, step: int) -> Verdict:
        number = trial.number
        arrived = self._at_rungs[step]
        mine = next(item for item in arrived if item.number == number)
        others = [item for item in arrived if item is not mine]
        judgement = self._rule.judge(
            mine.vector,
            [item.vector for item in others if item.excess == mine.excess],
            ahead=sum(item.excess < mine.excess for item in others),
            behind=sum(item.excess > mine.excess for item in others),
        )
        if not judgement.go_on:
            return self._end(trial, Verdict("PRUNED", judgement.reason, step))
        # Written, so that a replayed rung is not judged again against trials that came later.
        trial.set_user_attr(f"{RUNG}{step}", judgement.reason)
        self._promoted.add((number, step))
        return Verdict(None, judgement.reason, step)

    def _excess(self, metrics: Mapping[str, float]) -> float:
        """Sum of what an evaluation breaks the constraints by; 0 where it keeps them."""
        return sum(max(0.0, c.excess(metrics[c.metric])) for c in self._constraints)

    def _remember(self, trial: Trial, report: TrialReport) -> None:
        record = self.records[trial.number]
        if report.step in record.history:
            return
        if len(self._objectives) == 1:
            # Before the attribute: a replay after a crash in between fills both.
            with quiet_optuna():
                trial.report(report.metrics[self._objectives[0].metric], report.step)
        trial.set_user_attr(
            f"{EVALUATION}{report.step}", {"metrics": report.metrics, "seconds": report.seconds}
        )
        record.history[report.step] = dict(report.metrics)
        record.seconds += report.seconds
        self._note_rung(trial.number, report.step, report.metrics)

    def _note_rung(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Keep a trial's vector at a rung for the trials that arrive there later."""
        # A configuration counts once: those of which some seed is a result are no more than others.
        if step in self._rungs and self.records[number].original is None:
            at_rung = AtRung(number, self._excess(metrics), self.signed(metrics))
            # By number: crowding distances of equal vectors depend on their order.
            bisect.insort(self._at_rungs[step], at_rung)

    def _spend(self, trial: Trial, seconds: float) -> None:
        """Add time that led to no evaluation to the trial's."""
        before = trial.user_attrs.get(SPENT, 0.0)
        trial.set_user_attr(SPENT, before + seconds)
        self.records[trial.number].seconds += seconds

    def _count_attempt(self, trial: Trial, attempt: int) -> None:
        """Record how often the trial was started; Tune restarts a dead process without asking."""
        record = self.records[trial.number]
        if attempt > record.attempts:
            trial.set_user_attr("attempts", attempt)
            record.attempts = attempt

    def _last_step(self, number: int) -> int:
        return max(self.records[number].history, default=0)

    def _end(self, trial: Trial, verdict: Verdict) -> Verdict:
        """Write the decision, then tell Optuna; `_read_study` does it after a crash between."""
        assert verdict.state is not None
        record = self.records[trial.number]
        values: list[float] | None = None
        if verdict.state == "COMPLETE":
            metrics = record.history[verdict.step]
            values = [metrics[objective.metric] for objective in self._objectives]
        if self._constraints and verdict.step in record.history and verdict.state != "FAIL":
            metrics = record.history[verdict.step]
            for limit in self._constraints:
                with quiet_optuna():
                    trial.set_constraint(str(limit), limit.excess(metrics[limit.metric]))
            record.violations = violations(self._constraints, metrics)
        decided = {"state": verdict.state, "reason": verdict.reason, "step": verdict.step}
        trial.set_user_attr("verdict", decided)
        self.study.sampler = build_sampler(self._sampler, trial.number)
        self.study.tell(trial, values, state=TrialState[verdict.state])
        record.state = verdict.state
        record.reason = verdict.reason
        record.step = verdict.step
        record.values = tuple(values or ())
        if trial.datetime_start is not None:
            record.held = (datetime.now() - trial.datetime_start).total_seconds()
        self._live.pop(trial.number, None)
        self.running.pop(trial.number, None)
        self.ended.append(trial.number)
        return verdict

    def _start(self, trial: Trial, attempt: int) -> Proposal:
        point = self._space.draw(trial)
        self._tried.add(key_of(point))
        trial.set_user_attr("attempts", attempt)
        record = self.records.setdefault(trial.number, TrialRecord(trial.number, "RUNNING"))
        if self.replication is not None:
            record.original, point["seed"] = self._origin(trial.user_attrs, trial.number)
        record.state, record.point, record.attempts = "RUNNING", point, attempt
        self._live[trial.number] = trial
        self.running[trial.number] = record
        return Proposal(trial.number, point, self.folder / "trials" / str(trial.number), attempt)

    def _replicate(self, replicate: Replicate) -> Proposal:
        """Begin a trial with the point of another one and another seed."""
        frozen = begin_replicate(self.study, replicate)
        return self._start(live_trial(self.study, frozen), attempt=1)

    def _origin(self, attributes: Mapping[str, Any], number: int) -> tuple[int | None, int]:
        assert self.replication is not None
        where = f"{self.folder}: its study: trial {number}"
        return find_origin(attributes, self.replication.first_seed, where)

    def _resume(self, frozen: FrozenTrial) -> Proposal:
        """Continue a trial that a crash left RUNNING: same number, parameters and folder."""
        trial = live_trial(self.study, frozen)
        self.study.sampler = build_sampler(self._sampler, frozen.number)
        return self._start(trial, attempt=int(frozen.user_attrs.get("attempts", 0)) + 1)

    def _read_study(self) -> list[FrozenTrial]:
        """Fill the records from the study; tell Optuna the decisions that were only written.

        Returns:
            Trials that are still RUNNING, in number order.
        """
        interrupted = []
        where = f"{self.folder}: its study"
        wanted = [item.metric for item in (*self._objectives, *self._constraints)]
        for frozen in sorted(read_trials(self.study, where), key=lambda t: t.number):
            if frozen.state == TrialState.WAITING:
                continue
            record, verdict, rungs = read_record(
                frozen, self._space, wanted=wanted, constraints=self._constraints, where=where
            )
            self.records[frozen.number] = record
            self._tried.add(key_of(record.point))
            if self.replication is not None:
                origin = self._origin(frozen.user_attrs, frozen.number)
                record.original, record.point["seed"] = origin
            for step, metrics in record.history.items():
                self._note_rung(frozen.number, step, metrics)
            self._promoted |= {(frozen.number, step) for step in rungs}
            if frozen.state != TrialState.RUNNING:
                self.ended.append(frozen.number)
                continue
            self.running[frozen.number] = record
            if verdict is None:
                interrupted.append(frozen)
                continue
            self._live[frozen.number] = trial = live_trial(self.study, frozen)
            self._end(trial, Verdict(verdict.state, verdict.reason, verdict.step))
        return interrupted
