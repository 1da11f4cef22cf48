"""What a storage folder holds: one summary a run, read from the folders without MLflow."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..checkpoint.checkpoint import rank_score
from ..config.errors import ConfigError
from ..config.stored_json import check_stored, read_stored
from ..config.yaml_source import parse_value
from ..tracking.metric_table import separate_energy_rules
from .find_run import (
    BEST,
    SWEEP_PLAN,
    FoundRun,
    find_run,
    read_objectives,
    runs_in,
    start_of,
    trials_of,
)
from .run_state import read_json, run_state

_GROUPS = "groups.json"  # Configurations of a sweep with means over seeds, the best first.


@dataclass(frozen=True)
class RunSummary:
    """One run, trial or sweep; of a sweep, its best trial's neuron and scores.

    Of a sweep with several seeds it is the configuration with the best mean, and its means.

    Attributes:
        word: What later commands take.
        kind: `run`, `trial` or `sweep`.
        recipe: Name of the recipe; empty where its configuration cannot be read.
        T: Timesteps.
        D: Integer levels.
        normalization: Of the spikes.
        metrics: Of the best checkpoint, of a trial those of its last evaluation; `test/…` where
            the test split was scored.
        state: As `run_state` says it; of a sweep with its trials, and with how many seeds its
            scores are means of.
        started: Newest start, ISO 8601 with the local time's offset.
        folder: Its folder.
    """

    word: str
    kind: str
    recipe: str
    T: int | None
    D: int | None
    normalization: str | None
    metrics: dict[str, float]
    state: str
    started: str
    folder: str


def list_runs(storage: Path, *, sweep: str | None = None) -> list[RunSummary]:
    """Runs and sweeps of a storage folder, or the trials of one sweep, the newest start last.

    Args:
        storage: Folder of all runs.
        sweep: Name of a sweep, whose trials are listed.

    Raises:
        ConfigError: Where there is no such sweep.
    """
    if sweep is not None:
        runs = trials_of(find_run(sweep, storage, kinds=("sweep",)).folder)
    else:
        runs = sorted(runs_in(storage), key=start_of)
    return [_summarize(run) for run in runs]


def _summarize(run: FoundRun) -> RunSummary:
    state, shown = run_state(run), run
    if run.kind == "sweep":
        counts = Counter(run_state(trial) for trial in trials_of(run.folder))
        state += f" ({', '.join(f'{number} {name}' for name, number in sorted(counts.items()))})"
        try:
            shown = find_run(f"{run.word}/{BEST}", run.storage)
        except ConfigError:
            shown = run
    means, seeds = _read_means(run)
    state += f", mean of {seeds} seeds" if seeds > 1 else ""
    config = _read_config(shown.folder / "config.yaml")
    neuron = config.get("model", {}).get("neuron", {})
    recipe = read_json(run.folder / SWEEP_PLAN).get("recipe", config)
    return RunSummary(
        word=run.word,
        kind=run.kind,
        recipe=recipe.get("name", "") if isinstance(recipe, dict) else "",
        T=neuron.get("timesteps"),
        D=neuron.get("levels"),
        normalization=neuron.get("normalization"),
        metrics={**read_metrics(shown), **means},
        state=state,
        started=datetime.fromtimestamp(start_of(run)).astimezone().isoformat(timespec="seconds"),
        folder=str(run.folder),
    )


def _read_means(run: FoundRun) -> tuple[dict[str, float], int]:
    """Means of a sweep's leading configuration, and of how many seeds; empty where it has none."""
    path = run.folder / _GROUPS
    if run.kind != "sweep" or not path.is_file():
        return {}, 0
    groups = read_stored(path, list[dict[str, Any]])
    if not groups:
        return {}, 0
    means = {
        name: check_stored(groups[0].get(name), float, f"{path}: 0: {name}")
        for name in read_objectives(run)
    }
    return means, check_stored(groups[0].get("seeds"), int, f"{path}: 0: seeds")


def _read_config(path: Path) -> dict[str, Any]:
    """A run's configuration as it stands, whether or not this version accepts it."""
    try:
        content = parse_value(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_metrics(run: FoundRun) -> dict[str, float]:
    """Of the result; without one of the best evaluation so far, of a trial of the last one."""
    return separate_energy_rules(_read_metrics(run))


def _read_metrics(run: FoundRun) -> dict[str, float]:
    result = read_json(run.folder / "result.json")
    if result:
        return result["metrics"]
    for path in sorted(run.folder.glob("checkpoints/step-*/state.json"), reverse=True):
        history = [item["metrics"] for item in read_json(path).get("history", ())]
        if history:
            return history[-1] if run.kind == "trial" else max(history, key=rank_score)
    return {}


def checkpoint_metrics(checkpoint: Path) -> dict[str, float]:
    """What was measured at a checkpoint, and the run's test scores where they are of this one.

    Args:
        checkpoint: Its folder.
    """
    state = read_json(checkpoint / "state.json")
    result = read_json(checkpoint.parents[1] / "result.json")
    if result and result["best_step"] == state["step"]:
        return separate_energy_rules(result["metrics"])
    at_step = (item["metrics"] for item in state["history"] if item["step"] == state["step"])
    return separate_energy_rules(next(at_step, {}))
