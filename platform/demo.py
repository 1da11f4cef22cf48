"""The demo's steps in order; each reuses what an earlier demo left in the same storage."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.layouts.shapes import Shapes, ShapesOptions
from ..datasets.packed.pack import pack
from .cluster.session import connected
from .config.recipes import load_experiment
from .runs.predict_images import evaluate_checkpoint
from .search.sweep import SweepOptions, sweep
from .search.sweep_outcome import SweepOutcome, TrialResult
from .search.sweep_status import SweepStatus
from .train.progress import report_rows
from .train.trainer import TrainOutcome, resume_training, train

_RUN = "shapes_tiny-demo"
_SWEEP = "sweep-demo"
_CPUS = 2


@dataclass(frozen=True)
class DemoOutcome:
    """What a demo shows.

    Attributes:
        run: Folder of the training.
        trained: Its metrics, percent and mJ.
        trials: Trials of the sweep.
        best: The best of them by validation mIoU.
        report: Its scores on the test split, as `evaluate_checkpoint` gives them.
        contact_sheet: PNG of image, truth, prediction, error of the training.
        recipe: File with the best trial's configuration.
    """

    run: Path
    trained: dict[str, float]
    trials: int
    best: TrialResult
    report: dict[str, Any]
    contact_sheet: Path
    recipe: Path


def run_demo(
    storage: Path,
    *,
    progress: Callable[[str], None],
    show: Callable[[SweepStatus], None] | None = None,
) -> DemoOutcome:
    """Pack, train, sweep and evaluate, on two CPUs and generated data.

    Args:
        storage: Folder of everything that the demo leaves.
        progress: Takes a line for a person.
        show: Takes the state of the sweep whenever it changes.

    Raises:
        ConfigError: Where storage cannot be used.
        RuntimeError: Where training or the sweep failed.
    """
    storage = storage.absolute()
    data = storage / "data" / "shapes"
    generated = Shapes(ShapesOptions(level="easy"))
    digest = pack("shapes", generated, Path(), data, progress=report_rows(progress))
    progress(f"{data}: packed, digest {digest[:12]}")
    with connected(cpus=_CPUS):
        trained = _train(storage, data, progress)
        searched = _sweep(storage, data, progress, show)
    if searched.best is None:
        raise RuntimeError(f"{searched.folder}: {searched.missing}")
    progress(f"scoring trial {searched.best.number} on the test split")
    report = evaluate_checkpoint(searched.best.folder, (), split="test")
    return DemoOutcome(
        run=trained.folder,
        trained=trained.metrics,
        trials=sum(searched.counts.values()),
        best=searched.best,
        report=report,
        contact_sheet=trained.contact_sheet,
        recipe=searched.folder / "best.yaml",
    )


def _train(storage: Path, data: Path, progress: Callable[[str], None]) -> TrainOutcome:
    if (storage / _RUN / "config.yaml").is_file():
        return resume_training(_RUN, storage=storage, progress=progress)
    resolved = load_experiment("shapes_tiny", [f"data.path={data}"])
    return train(resolved, storage=storage, name=_RUN, progress=progress)


def _sweep(
    storage: Path,
    data: Path,
    progress: Callable[[str], None],
    show: Callable[[SweepStatus], None] | None,
) -> SweepOutcome:
    there = (storage / _SWEEP / "plan.json").is_file()
    return sweep(
        "demo",
        [f"data.path={data}"],
        SweepOptions(storage=storage, resume=_SWEEP if there else None, name=_SWEEP),
        progress=progress,
        show=show,
    )
