"""The keeper of one sweep's study: it alone writes to Optuna; the study is the only truth.

What survives a crash is in the study: parameters, every evaluation (`at:<step>`), every promotion
(`rung:<step>`), and the decision that ends a trial (`verdict`), written before Optuna's `tell`.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from ...config.yaml_source import ConfigError
from ..sweep_file.plan import SweepPlan
from ..sweep_file.schema import Limit, Objective
from ..sweep_file.space import Point, Space
from .optuna_internals import live_trial
from .pruners import build_rule
from .samplers import ask, build_sampler, key_of
from .study_storage import open_storage
from .trial_records import VERDICT, Proposal, TrialRecord, TrialReport, Verdict

_log = logging.getLogger(__name__)
_GO_ON = "go on"
_SPENT = "seconds_without_evaluation"


class Keeper:
    """Proposes trials, judges their reports and ends them; not thread-safe, lives in the driver.

    Args:
        plan: The checked sweep.
        folder: The sweep's folder; trials live in `trials/<number>` below it.
        storage: sqlite file, RDB URL or journal file of the study.
        trials: Budget: trials of the whole sweep, whatever becomes of them.

    Raises:
        ConfigError: Where the folder has trials that ended and the study does not know them.
    """

    def __init__(self, plan: SweepPlan, folder: Path, *, storage: str, trials: int) -> None:
        recipe = plan.recipe
        self.folder = folder
        self.trials = trials
        self.records: dict[int, TrialRecord] = {}
        self._space: Space = recipe.space
        self._objectives: Sequence[Objective] = recipe.objectives
        self._constraints: Sequence[Limit] = recipe.constraints
        self._limits: Sequence[Limit] = recipe.pruner.limits
        self._rule = build_rule(recipe.pruner)
        self._rungs = set(plan.rungs) if recipe.pruner.rule != "none" else set()
        self._sampler = recipe.sampler
        self._live: dict[int, Trial] = {}
        self._promoted: set[tuple[int, int]] = set()
        self.study = optuna.create_study(
            storage=open_storage(storage),
            study_name=folder.name,
            directions=[objective.direction for objective in recipe.objectives],
            load_if_exists=True,
        )
        self._interrupted = self._read_study()
        self._check_ended()
        if recipe.sampler.name in ("grid", "listed"):
            self.trials = min(trials, len(plan.points))
        elif (points := recipe.space.few_points()) is not None:
            tried = {key_of(record.point) for record in self.records.values()}
            left = sum(key_of(point) not in tried for point in points)
            self.trials = min(trials, len(self.records) + left)
        # What was started is brought to an end, however few trials are asked for now.
        self.trials = max(self.trials, len(self.records))
        self._enqueue(plan.points[: self.trials])

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
        return sum(r.state in ("COMPLETE", "PRUNED", "FAIL") for r in self.records.values())

    def next(self) -> Proposal | None:
        """Begin the next trial: an interrupted one, else a new one; None when none is left."""
        if self._interrupted:
            return self._resume(self._interrupted.pop(0))
        if self.finished + len(self._live) >= self.trials:
            return None
        # A fresh sampler a trial: what it proposes depends on seed, number and the trials so far,
        # not on how often the driver was killed.
        number = max(self.records, default=-1) + 1
        tried = {key_of(record.point) for record in self.records.values()}
        begun = [t for t in self.study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
        if len(begun) > len(self.records):
            raise RuntimeError(
                f"trial {begun[-1].number} was begun by somebody else: another driver, with a "
                f"folder of its own, is at work on the study {self.study.study_name}"
            )
        trial = ask(self.study, self._sampler, self._space, number=number, tried=tried)
        return self._start(trial, attempt=1)

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
        problem = self._problem(report.metrics)
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
        if report.step in self._rungs and (number, report.step) not in self._promoted:
            return self._judge(trial, report.step)
        return Verdict(None, _GO_ON, report.step)

    def lost(self, number: int, reason: str) -> Verdict | None:
        """Fail a trial whose process is gone for good; None where it had ended before."""
        trial = self._live.get(number)
        if trial is None:
            return None
        return self._end(trial, Verdict("FAIL", reason, self._last_step(number)))

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
        metrics = self.records[number].history[step]
        excess = self._excess(metrics)
        others = [
            record.history[step]
            for record in self.records.values()
            if record.number != number and step in record.history
        ]
        judgement = self._rule.judge(
            self.signed(metrics),
            [self.signed(other) for other in others if self._excess(other) == excess],
            ahead=sum(self._excess(other) < excess for other in others),
            behind=sum(self._excess(other) > excess for other in others),
        )
        if not judgement.go_on:
            return self._end(trial, Verdict("PRUNED", judgement.reason, step))
        # Written, so that a replayed rung is not judged again against trials that came later.
        trial.set_user_attr(f"rung:{step}", judgement.reason)
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
            with _quiet():
                trial.report(report.metrics[self._objectives[0].metric], report.step)
        trial.set_user_attr(
            f"at:{report.step}", {"metrics": report.metrics, "seconds": report.seconds}
        )
        record.history[report.step] = dict(report.metrics)
        record.seconds += report.seconds

    def _spend(self, trial: Trial, seconds: float) -> None:
        """Add time that led to no evaluation to the trial's."""
        before = trial.user_attrs.get(_SPENT, 0.0)
        trial.set_user_attr(_SPENT, before + seconds)
        self.records[trial.number].seconds += seconds

    def _count_attempt(self, trial: Trial, attempt: int) -> None:
        """Record how often the trial was started; Tune restarts a dead process without asking."""
        record = self.records[trial.number]
        if attempt > record.attempts:
            trial.set_user_attr("attempts", attempt)
            record.attempts = attempt

    def _problem(self, metrics: Mapping[str, float]) -> str | None:
        wanted = [item.metric for item in (*self._objectives, *self._limits, *self._constraints)]
        for name in wanted:
            if name not in metrics:
                return f"{name} is not among the metrics of the evaluation"
            if not math.isfinite(metrics[name]):
                return f"{name} is {metrics[name]}"
        return None

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
                with _quiet():
                    trial.set_constraint(str(limit), limit.excess(metrics[limit.metric]))
            record.violations = _violations(self._constraints, metrics)
        trial.set_user_attr(
            "verdict",
            {"state": verdict.state, "reason": verdict.reason, "step": verdict.step},
        )
        self.study.sampler = build_sampler(self._sampler, trial.number)
        self.study.tell(trial, values, state=TrialState[verdict.state])
        record.state = verdict.state
        record.reason = verdict.reason
        record.step = verdict.step
        record.values = tuple(values or ())
        self._live.pop(trial.number, None)
        return verdict

    def _start(self, trial: Trial, attempt: int) -> Proposal:
        point = self._space.draw(trial)
        trial.set_user_attr("attempts", attempt)
        record = self.records.setdefault(trial.number, TrialRecord(trial.number, "RUNNING"))
        record.state, record.point, record.attempts = "RUNNING", point, attempt
        self._live[trial.number] = trial
        return Proposal(trial.number, point, self.folder / "trials" / str(trial.number), attempt)

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
        for frozen in sorted(self.study.get_trials(deepcopy=False), key=lambda t: t.number):
            if frozen.state == TrialState.WAITING:
                continue
            record = self._record(frozen)
            self.records[frozen.number] = record
            steps = (k for k in frozen.user_attrs if k.startswith("rung:"))
            self._promoted |= {(frozen.number, int(k.removeprefix("rung:"))) for k in steps}
            if frozen.state != TrialState.RUNNING:
                continue
            verdict = frozen.user_attrs.get("verdict")
            if verdict is None:
                interrupted.append(frozen)
                continue
            self._live[frozen.number] = trial = live_trial(self.study, frozen)
            self._end(trial, Verdict(verdict["state"], verdict["reason"], verdict["step"]))
        return interrupted

    def _check_ended(self) -> None:
        """Refuse a study without trials that have ended: new ones would take their folders."""
        ended = {int(path.parent.name) for path in self.folder.glob(f"trials/*/{VERDICT}")}
        unknown = sorted(ended - set(self.records))
        if unknown:
            raise ConfigError(
                f"{self.folder}: trial {unknown[0]} has ended, and the study does not know it: it "
                "is not, or not all of, the study that this sweep began with"
            )

    def _record(self, frozen: FrozenTrial) -> TrialRecord:
        attrs = frozen.user_attrs
        evaluations = {
            int(key.removeprefix("at:")): value
            for key, value in attrs.items()
            if key.startswith("at:")
        }
        history = {step: value["metrics"] for step, value in sorted(evaluations.items())}
        verdict = attrs.get("verdict", {})
        last = history.get(verdict.get("step", -1))
        return TrialRecord(
            number=frozen.number,
            state=frozen.state.name,
            point=self._space.decode(frozen.params),
            history=history,
            seconds=sum(value["seconds"] for value in evaluations.values())
            + attrs.get(_SPENT, 0.0),
            reason=verdict.get("reason", ""),
            step=verdict.get("step", 0),
            attempts=int(attrs.get("attempts", 1)),
            violations=_violations(self._constraints, last) if last else (),
            values=tuple(frozen.values or ()) if frozen.state == TrialState.COMPLETE else (),
        )

    def _enqueue(self, points: Sequence[Point]) -> None:
        """Queue fixed points that an earlier start did not queue."""
        queued = {
            frozen.user_attrs["point"]
            for frozen in self.study.get_trials(deepcopy=False)
            if "point" in frozen.user_attrs
        }
        for index, point in enumerate(points):
            if index not in queued:
                self.study.enqueue_trial(self._space.encode(point), user_attrs={"point": index})


def _violations(limits: Sequence[Limit], metrics: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(str(limit) for limit in limits if limit.excess(metrics[limit.metric]) > 0)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's warnings: of values written twice after a crash, of new features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
