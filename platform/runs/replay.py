"""Repeat a run from its id, and report the first difference and its likely cause."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...datasets.packed.reader import PackedDataset
from ..config.recipes import ConfigError, Resolved, load_resolved, override
from ..tracking.code_state import code_digest, git_state
from ..tracking.journal_lines import read_records
from ..tracking.provenance import environment, hardware, packages
from ..tracking.run_reader import TrackedRun, read_run
from ..tracking.tracking_uri import tracking_uri
from ..train.trainer import train

# What depends on the clock and on the machine's load is not part of a result.
_NOT_COMPARED = ("perf/", "system/")
# Where a run goes and who starts it; the platform sets some of these itself.
_NOT_DECIDING = ("MLFLOW_", "RAY_", "SLURM_", "SPIKESEG_JOB_ID")
# Recorded every `trainer.log_every` steps.
_LOGGED = "train/"
_DECIDING_PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "pillow", "pyarrow")


@dataclass(frozen=True)
class Difference:
    """Something that differs between the recorded run and this machine.

    Attributes:
        kind: `data`, `packages`, `code`, `threads`, `environment` or `hardware`.
        text: What was, and what is.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Plan:
    """A run that can be repeated.

    Attributes:
        run: The run.
        resolved: Its configuration.
        differences: What is not as it was, the likeliest cause of another result first.
        one_interval: Whether all starts of the run had one `trainer.log_every`, so that the
            repetition records the same steps.
    """

    run: TrackedRun
    resolved: Resolved
    differences: list[Difference]
    one_interval: bool


@dataclass(frozen=True)
class Verdict:
    """How a repetition ended.

    Attributes:
        folder: The new run's folder.
        compared: Pairs of key and step that were compared.
        first: (step, key, before, now) of the first pair that differs; None where all are equal.
        cause: The likely cause of the difference; empty where there is none.
    """

    folder: Path
    compared: int
    first: tuple[int, str, float | None, float | None] | None
    cause: str


def plan_replay(run_id: str, storage: Path, data: str | None = None) -> Plan:
    """Check that a run can be repeated here, and list what differs from its record.

    Args:
        run_id: The run's id in MLflow.
        storage: Folder of all runs, which has the database where no tracking URI is set.
        data: Where its packed data lies now, if not where it lay.

    Raises:
        ConfigError: Names everything that is missing.
    """
    run = read_run(tracking_uri(storage), run_id)
    config, recorded = run.read("config.yaml"), run.read("provenance.json")
    if "sweep.sampler" in run.params:
        raise ConfigError(f"run {run_id} is a sweep: give the id of one of its trials")
    missing = [
        f"artifact {name} of run {run_id} (a training writes it at its start)"
        for name, content in (("config.yaml", config), ("provenance.json", recorded))
        if content is None
    ]
    if config is None or recorded is None:
        raise ConfigError(f"run {run_id} cannot be repeated; missing: {'; '.join(missing)}")
    made_of = _read_json(run_id, recorded)
    try:
        resolved = Resolved(load_resolved(config.decode()).config, made_of.get("origins", {}))
    except ValueError as error:
        raise ConfigError(f"run {run_id}: artifact config.yaml: {error}") from error
    if data is not None:
        section = resolved.config.data.model_copy(update={"path": str(Path(data).absolute())})
        resolved = Resolved(resolved.config.model_copy(update={"data": section}), resolved.origins)
    if "trial" in run.tags:
        # Whatever its configuration says, a sweep's trial never scored the test split.
        resolved = override(resolved, {"trainer.test": False}, "a sweep's trial")
    resolved, elsewhere = _use_machine(resolved)
    differences = _compare_data(run, resolved.config.data.path) + elsewhere
    differences += compare_provenance(made_of)
    starts = made_of.get("starts", [])
    intervals = {str(start.get("log_every")) for start in starts if isinstance(start, dict)}
    # A parameter is the first start's, the configuration the last one's.
    last = str(resolved.config.trainer.log_every)
    intervals |= {last, run.params.get("trainer.log_every", last)}
    return Plan(run, resolved, differences, len(intervals) == 1)


def _read_json(run_id: str, content: bytes) -> dict[str, Any]:
    try:
        made_of = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"run {run_id}: artifact provenance.json: no JSON: {error}") from error
    if not isinstance(made_of, dict):
        raise ConfigError(f"run {run_id}: artifact provenance.json: not an object")
    return made_of


def _use_machine(resolved: Resolved) -> tuple[Resolved, list[Difference]]:
    """The recorded device and backend where they are here; else this machine's, and what differs.

    The number of workers, threads and everything else that the record has is repeated.
    """
    if torch.cuda.is_available():
        return resolved, []
    recorded = {
        "trainer.device": resolved.config.trainer.device,
        "model.neuron.backend": resolved.config.model.neuron.backend,
    }
    missing = [key for key, value in recorded.items() if value == "cuda"]
    if not missing:
        return resolved, []
    texts = [f"{key} was cuda, is auto, since torch sees no GPU here" for key in missing]
    here = override(resolved, dict.fromkeys(missing, "auto"), "this machine")
    return here, [Difference("hardware", text) for text in texts]


def _compare_data(run: TrackedRun, path: str) -> list[Difference]:
    wanted = run.tags.get("data_digest", "")
    try:
        digest = PackedDataset.open(path).digest
    except ValueError as error:
        raise ConfigError(
            f"run {run.run_id} cannot be repeated; missing: its data, digest {wanted[:12]}, in "
            f"{path} ({error}); say where it lies now with --data DIR"
        ) from error
    if digest == wanted:
        return []
    return [Difference("data", f"digest of {path} was {wanted[:12]}, is {digest[:12]}")]


def compare_provenance(recorded: Mapping[str, Any]) -> list[Difference]:
    """List what differs between a recorded run and this process, likeliest cause first.

    Args:
        recorded: Content of `provenance.json`.
    """
    differences = []
    now = packages()
    then = _section(recorded, "packages")
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            text = f"{name} was {then.get(name, 'absent')}, is {now.get(name, 'absent')}"
            differences.append(Difference("packages", text))
    code = _section(recorded, "code")
    if code.get("digest") != code_digest():
        # Before they said where it stands, runs always had it.
        difference = code.get("difference", "artifact code.diff")
        was = _commit(code, f" with changes ({difference})")
        differences.append(
            Difference("code", f"was {was}, is {_commit(git_state(), ' with changes')}")
        )
    before, after = _section(recorded, "environment"), environment(os.environ)
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name) and not name.startswith(_NOT_DECIDING):
            kind = "threads" if name.endswith("_NUM_THREADS") else "environment"
            text = f"{name} was {before.get(name, 'unset')}, is {after.get(name, 'unset')}"
            differences.append(Difference(kind, text))
    machine, here_too = _section(recorded, "hardware"), hardware()
    for name in ("processor", "capability", "gpus", "cuda", "cores"):
        if machine.get(name) != here_too[name]:
            text = f"{name} was {machine.get(name)}, is {here_too[name]}"
            differences.append(Difference("hardware", text))
    return sorted(differences, key=_rank)


def _rank(difference: Difference) -> int:
    """Sort key of a difference: the likelier it changes a result, the smaller."""
    order = ("data", "packages", "code", "threads", "hardware", "environment")
    other = difference.kind == "packages" and not difference.text.startswith(
        tuple(f"{name} was " for name in _DECIDING_PACKAGES)
    )
    return len(order) if other else order.index(difference.kind)


def _commit(code: Mapping[str, Any], changes: str) -> str:
    return f"commit {code.get('git_sha', 'unknown')[:12]}" + (
        changes if code.get("dirty") == "true" else ""
    )


def _section(recorded: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = recorded.get(name)
    return section if isinstance(section, dict) else {}


def replay(plan: Plan, *, storage: Path, progress: Callable[[str], None]) -> Verdict:
    """Train again and compare every metric at every step with the first run's.

    Args:
        plan: The run.
        storage: Folder of all runs.
        progress: Takes a line for a person.

    Raises:
        ConfigError: Where it cannot start.
        TrainingFailedError: Where it cannot be finished.
    """
    before = recorded_values(plan.run)
    if not before:
        raise ConfigError(
            f"run {plan.run.run_id} ({plan.run.status}) recorded no metric: nothing to compare with"
        )
    name = f"replay-{plan.run.run_id[:8]}-{time.strftime('%Y%m%d-%H%M%S')}"
    outcome = train(
        plan.resolved,
        storage=storage,
        name=name,
        progress=progress,
        tags={"replay_of": plan.run.run_id},
    )
    now: dict[tuple[int, str], float] = {}
    for record in read_records(outcome.folder / "journal"):
        if record["kind"] == "metrics":
            for key, value in record["values"].items():
                if not key.startswith(_NOT_COMPARED):
                    now.setdefault((record["step"], key), value)
    if plan.run.status != "FINISHED":
        # It may have ended in the middle of its last step, and the repetition goes on after it.
        last = max(step for step, _ in before)
        now = {at: value for at, value in now.items() if at in before or at[0] < last}
    now = leave_out_start(before, now)
    if not plan.one_interval:
        progress("trainer.log_every changed between the run's starts: train/ where both logged it")
        # A step that one of them merely did not log says nothing.
        for one, other in ((before, dict(now)), (now, dict(before))):
            for step, key in [at for at in one if at[1].startswith(_LOGGED) and at not in other]:
                del one[step, key]
    first = find_first_difference(before, now)
    return Verdict(outcome.folder, len(before), first, describe_cause(plan) if first else "")


def recorded_values(run: TrackedRun) -> dict[tuple[int, str], float]:
    """(step, metric) -> value of everything of a run that a repetition must give again."""
    return {
        (step, key): value
        for key, points in run.series.items()
        if not key.startswith(_NOT_COMPARED)
        for step, value in points
    }


def leave_out_start(
    before: Mapping[tuple[int, str], float], now: Mapping[tuple[int, str], float]
) -> dict[tuple[int, str], float]:
    """Leave out the untrained network's scores where the first run was recorded without them.

    Args:
        before: (step, metric) -> value of the first run.
        now: The same of the repetition.
    """
    if (0, "val/mIoU") in before:
        return dict(now)
    return {at: value for at, value in now.items() if at[0] > 0 or at in before}


def find_first_difference(
    before: Mapping[tuple[int, str], float], now: Mapping[tuple[int, str], float]
) -> tuple[int, str, float | None, float | None] | None:
    """Find the earliest metric that differs: step, name and both values; None where none does.

    A value is None where only the other run has one.

    Args:
        before: (step, metric) -> value of the first run.
        now: The same of the repetition.
    """
    for step, key in sorted({*before, *now}):
        old, new = before.get((step, key)), now.get((step, key))
        both_nan = None not in (old, new) and old != old and new != new
        if _as_stored(old) != _as_stored(new) and not both_nan:
            return step, key, old, new
    return None


def _as_stored(value: float | None) -> float | None:
    """The value as MLflow's databases store it: the largest float for infinity."""
    largest = sys.float_info.max
    return math.copysign(largest, value) if value is not None and math.isinf(value) else value


def describe_cause(plan: Plan) -> str:
    """Describe the likeliest cause of a difference in words."""
    if plan.differences:
        first = plan.differences[0]
        return f"{first.kind}: {first.text}"
    return "nothing that is recorded differs: this training does not repeat itself on this machine"
