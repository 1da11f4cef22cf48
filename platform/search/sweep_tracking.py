"""A sweep's own run in MLflow, parent of its trials' runs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..checkpoint.run_folder import RunFolder
from ..config.recipes import ConfigError, config_digest, dump
from ..tracking.code_state import code_diff, code_digest, git_state
from ..tracking.journal import Journal, Status, append_end, append_tags, file_of, read_records
from ..tracking.pages.run_page import NOTE, TRIAL_PICTURES, describe_trial, renew_note, source_tags
from ..tracking.pages.run_parameters import MOST_PARAMETERS
from ..tracking.pages.shared_view import CONFIGURATION, Objective, request_view
from ..tracking.provenance import provenance, versions
from ..tracking.tracking_uri import tracking_uri
from ..tracking.upload.upload_thread import Sender
from ..train.tracked_training import make_journal
from .study.failure_cause import failure_cause
from .study.study import Keeper
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan
from .sweep_file.point_names import describe_point
from .sweep_standing import is_degenerate_trial
from .sweep_verdict import describe_rank

# Each look at a changed journal costs a round of requests; trials take minutes.
_POLL_SECONDS = 15.0
# MLflow's import and a new database would slow the start of Ray and of the first trials.
_FIRST_SECONDS = 60.0
_STOP_SECONDS = 30.0
_OWN_PARAMETERS = 6
_LEAVE_SECONDS = 8.0
_STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
_STATUS: dict[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}


class SweepRecord:
    """The parent run of a sweep.

    Args:
        plan: The sweep.
        folder: Its folder.
        storage: Folder of all runs.
        trials: Trials of the whole sweep.
    """

    def __init__(self, plan: SweepPlan, folder: Path, storage: Path, *, trials: int) -> None:
        recipe = plan.recipe
        objectives = [f"{o.metric} ({o.direction})" for o in recipe.objectives]
        code = git_state()
        self.journal = Journal(
            folder / "journal",
            run_name=folder.name,
            tags={
                **plan.base.config.tracking.tags,
                **source_tags(f"spikeseg sweep {recipe.name}", code),
                "run": folder.name,
                "sweep": folder.name,
                "state": "RUNNING",
                "recipe": recipe.name,
                "base": recipe.base,
                "trials": str(trials),
                **({CONFIGURATION: f"sweep {folder.name}"} if recipe.replicates else {}),
                **code,
                "code_digest": code_digest(),
                "config_digest": config_digest(plan.base.config),
                **{f"version.{name}": value for name, value in versions().items()},
                NOTE: f"Sweep `{recipe.name}` over `{recipe.base}`; its trials are below.\n",
            },
            params={
                "sweep.sampler": recipe.sampler.name,
                "sweep.seed": str(recipe.sampler.seed),
                "sweep.pruner": recipe.pruner.rule,
                "sweep.objectives": ", ".join(objectives),
                "sweep.constraints": ", ".join(map(str, recipe.constraints)) or "none",
                "data.path": plan.base.config.data.path,
                **_space_parameters(plan),
            },
        )
        self.journal.tags(
            request_view(
                self.journal.id[:12],
                sweep=folder.name,
                varied=list(recipe.space.dimensions),
                objectives=[
                    Objective(o.metric, o.direction == "minimize") for o in recipe.objectives
                ],
                means=recipe.replicates is not None,
            )
        )
        made_of = provenance(plan.base, world_size=recipe.workers_per_trial)
        self.journal.text("config.yaml", dump(plan.base.config))
        content = recipe.model_dump(mode="json")
        self.journal.text("recipe.yaml", yaml.safe_dump(content, sort_keys=False))
        self.journal.text("provenance.json", json.dumps(made_of, indent=1))
        if plan.base.config.tracking.code_diff:
            self.journal.text("code.diff", code_diff())
        self._plan = plan
        self._folder = folder
        self._sender = Sender(
            self.journal.folder,
            tracking_uri(storage),
            plan.base.config.tracking.experiment,
            folder,
            poll=_POLL_SECONDS,
            delay=_FIRST_SECONDS,
        )
        self._sender.start()

    def begin_sending(self) -> None:
        """End the delay of the first upload: there is something to see."""
        self._sender.begin()

    def trial_tags(self, item: TrialRecord) -> dict[str, str]:
        """Tags of a trial's run; trials that differ in nothing but the seed share a group."""
        same = {key: value for key, value in sorted(item.point.items()) if key != "seed"}
        digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
        return {
            "run": f"{self._folder.name}/{item.number}",
            "sweep": self._folder.name,
            "trial": str(item.number),
            "group": digest[:12],
            **self._configuration_tag(item),
        }

    def _configuration_tag(self, item: TrialRecord) -> dict[str, str]:
        """Of a sweep with replicates what MLflow's table takes the mean of a configuration over."""
        replicates = self._plan.recipe.replicates
        if replicates is None:
            return {}
        if replicates.best is not None and item.original is None:
            return {CONFIGURATION: "first trainings, in no mean"}
        point = {key: value for key, value in item.point.items() if key != "seed"}
        return {CONFIGURATION: describe_point(self._plan, point) or f"#{item.group}"}

    def record_end(self, item: TrialRecord) -> None:
        """Record a trial's state and reason in its own journal, once.

        A trial whose process died before it had a journal gets one here, so that MLflow shows as
        many trials as the study.
        """
        folder = self._folder / "trials" / str(item.number)
        tags = {"state": item.state, "reason": item.reason, "attempts": str(item.attempts)}
        if item.violations:
            tags["violations"] = "; ".join(item.violations)
        if item.state == "FAIL":
            tags["cause"] = failure_cause(item.reason)
        if is_degenerate_trial(item):
            tags["degenerate"] = "true"
        if not (folder / "journal" / "records.jsonl").is_file():
            self._create_journal(folder, item)
        end = _read_end(folder / "journal")
        if end.tags != tags:
            note = {NOTE: self._describe(item, end.note, "")}
            append_end(folder / "journal", {**tags, **note}, _STATUS[item.state])

    def record_ranks(self, ranked: Sequence[tuple[int, TrialRecord]]) -> None:
        """Put every result's place in the sweep into the sentence of its page.

        Args:
            ranked: Place from 1 on, and trial.
        """
        for place, item in ranked:
            journal = self._folder / "trials" / str(item.number) / "journal"
            end = _read_end(journal)
            rank = describe_rank(self._plan, place, len(ranked), self._folder.name)
            note = self._describe(item, end.note, rank)
            if note != end.note:
                append_tags(journal, {NOTE: note})

    def _describe(self, item: TrialRecord, before: str, rank: str) -> str:
        """The description of a trial that has ended."""
        try:
            config = self._plan.experiment(item.point).config
        except ConfigError as error:
            return renew_note(before, f"{item.state}: {error}", ())
        complete = item.state == "COMPLETE"
        files = self._folder / "trials" / str(item.number) / "journal"
        pictures = [path for path in TRIAL_PICTURES if file_of(files, path).is_file()]
        state = "" if complete else f"{item.state}, {item.reason}"
        last = item.history.get(item.step, {})
        return renew_note(before, describe_trial(config, last, state, rank), pictures)

    def _create_journal(self, folder: Path, item: TrialRecord) -> None:
        """Create the journal of a trial that never ran."""
        tags = self.trial_tags(item)
        try:
            resolved = self._plan.experiment(item.point)
            run = RunFolder(folder)
            make_journal(resolved, run, 1, tags, parent=self.journal.id).close()
        except ConfigError:
            params = {key: str(value) for key, value in item.point.items()}
            Journal(
                folder / "journal",
                run_name=f"#{item.number}",
                tags={**self._plan.base.config.tracking.tags, **tags},
                params=params,
                parent=self.journal.id,
            ).close()

    def reconcile(self, keeper: Keeper) -> None:
        """Record ends of trials that a killed driver wrote into the study and not the journals."""
        for item in keeper.records.values():
            if item.state in ("COMPLETE", "PRUNED", "FAIL"):
                self.record_end(item)
                self._add_configuration(item)

    def _add_configuration(self, item: TrialRecord) -> None:
        """Give a trial that began under an earlier version the tag that MLflow groups by."""
        journal = self._folder / "trials" / str(item.number) / "journal"
        tag = self._configuration_tag(item)
        tags = (r["values"] for r in read_records(journal) if r["kind"] == "tags")
        if tag and not any(CONFIGURATION in values for values in tags):
            append_tags(journal, tag)

    def follow(self, done: int, values: Mapping[str, float], scores: Sequence[float]) -> None:
        """Record metrics of the whole sweep; the step is the number of ended trials.

        Args:
            done: Ended trials.
            values: Metrics of the sweep.
            scores: Values of the objectives so far (`score_sweep`), under the names that trials
                use: a sweep's row in a table of runs shows them.
        """
        names = [objective.metric for objective in self._plan.recipe.objectives]
        self.journal.metrics(done, {**values, **dict(zip(names, scores, strict=True))})

    def finish(self, keeper: Keeper) -> None:
        """Record how many trials ended in which state."""
        states = [item.state for item in keeper.records.values()]
        self.journal.metrics(
            keeper.finished, {f"trials/{state.lower()}": states.count(state) for state in _STATES}
        )

    def close(self, *, finished: bool) -> None:
        """Record the sweep's end and send what is left; what MLflow does not take stays here."""
        self.journal.tags({"state": "COMPLETE" if finished else "KILLED"})
        self.journal.finish("FINISHED" if finished else "KILLED")
        self._sender.stop(timeout=_STOP_SECONDS if finished else _LEAVE_SECONDS)
        self.journal.close()


def _space_parameters(plan: SweepPlan) -> dict[str, str]:
    """What a sweep searches, a dimension a parameter; the last ones are counted where many."""
    values = {
        f"space.{key}": json.dumps(dimension.model_dump(mode="json"))
        for key, dimension in plan.recipe.space.dimensions.items()
    }
    room = MOST_PARAMETERS - _OWN_PARAMETERS
    if len(values) <= room:
        return values
    shown = dict(list(values.items())[: room - 1])
    return {**shown, "space": f"{len(values) - len(shown)} more, in recipe.yaml"}


class _End(NamedTuple):
    """The end that a journal's last records are.

    Attributes:
        tags: Its tags without the description; None where the run has not ended.
        note: The newest description; empty where there is none.
    """

    tags: dict[str, str] | None
    note: str


def _read_end(journal: Path) -> _End:
    note, records = "", list[dict[str, Any]]()
    for record in read_records(journal):
        if record["kind"] == "model":  # written after the end, as these tags
            continue
        if record["kind"] == "tags":
            note = record["values"].get(NOTE, note)
            if set(record["values"]) <= {NOTE, CONFIGURATION}:
                continue
        records = [*records[-1:], record]
    if [record["kind"] for record in records] != ["tags", "status"]:
        return _End(None, note)
    return _End({k: v for k, v in records[0]["values"].items() if k != NOTE}, note)
