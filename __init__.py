"""Spike2Former as a platform: search, train and compare spiking image segmentors.

    run = spikeseg.load("latest")
    labels = run.predict(image)  # (H, W, 3) uint8 -> (H, W) class ids

Everything else is the `spikeseg` command; docs/python.md shows more. Nothing is imported before it
is used, so that `import spikeseg` costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .platform.runs.list_runs import RunSummary
    from .platform.runs.loaded_run import LoadedRun
    from .platform.train.trainer import TrainOutcome

__all__ = ["list_runs", "load", "train"]


def load(
    run: str | Path, *, storage: str | Path | None = None, overrides: Sequence[str] = ()
) -> "LoadedRun":
    """Load a trained run, to predict image arrays with it.

    Args:
        run: A run's name or a unique prefix of it, the folder of a run or checkpoint, a run's id
            in MLflow, `SWEEP/TRIAL`, `SWEEP/best`, or `latest`; `list_runs` shows them.
        storage: Folder of all runs; SPIKESEG_STORAGE or `runs` if not given.
        overrides: Items `field=value` over the run's configuration, such as `trainer.device=cpu`.

    Raises:
        ValueError: Where nothing or several runs are named, or there is no good checkpoint.
    """
    from .platform.runs.loaded_run import load_run

    return load_run(str(run), _storage(storage), overrides)


def train(
    recipe: str | Path,
    overrides: Mapping[str, object] | Sequence[str] = (),
    *,
    storage: str | Path | None = None,
    progress: Callable[[str], None] = print,
) -> "TrainOutcome":
    """Train a recipe, choose the best checkpoint on val, score it on test once.

    Args:
        recipe: Name of a shipped recipe, or path of a YAML file.
        overrides: Dotted field -> value, or items `field=value`, over the recipe's.
        storage: Folder of all runs; SPIKESEG_STORAGE or `runs` if not given.
        progress: Takes a line for a person.

    Returns:
        Name, folder, metrics and per-class table; `load` takes the name.

    Raises:
        ValueError: Where the request is wrong; nothing was started.
        RuntimeError: Where training could not be finished.
    """
    from .platform.config.recipes import load_experiment
    from .platform.runs.find_run import resolve_initial_run
    from .platform.train.trainer import train as train_experiment

    folder = _storage(storage)
    if isinstance(overrides, Mapping):
        values = {k: str(v) if isinstance(v, Path) else v for k, v in overrides.items()}
        if isinstance(word := values.get("init.segmentor"), str):
            (item,) = resolve_initial_run([f"init.segmentor={word}"], folder)
            values["init.segmentor"] = item.partition("=")[2]
        resolved = load_experiment(str(recipe), values=values)
    else:
        resolved = load_experiment(str(recipe), resolve_initial_run(overrides, folder))
    return train_experiment(resolved, storage=folder, progress=progress)


def list_runs(storage: str | Path | None = None, *, sweep: str | None = None) -> "list[RunSummary]":
    """List the runs and sweeps of a storage folder, the newest start last.

    Args:
        storage: Folder of all runs; SPIKESEG_STORAGE or `runs` if not given.
        sweep: Name of a sweep, whose trials are listed instead.
    """
    from .platform.runs import list_runs as listing

    return listing.list_runs(_storage(storage), sweep=sweep)


def _storage(storage: str | Path | None) -> Path:
    from .platform.config.storage import default_storage
    from .platform.config.typed_paths import resolve_path

    return default_storage() if storage is None else resolve_path(storage)
