"""Scores beside those of an answer that ignores the image, and which scores are no better."""

from collections.abc import Mapping

from ...datasets.packed.baselines import read_baselines
from ...datasets.packed.reader import PackedDataset

MARGIN = 1.0
"""Points of mIoU by which a score must beat every baseline to count as learned."""
BASELINES = ("majority", "position")
_LEARNED_ON = "train"


def baseline_metrics(dataset: PackedDataset, split: str) -> dict[str, float]:
    """Baselines of a split under their names in MLflow: `val/baseline_majority`, in percent.

    Args:
        dataset: The packed data.
        split: The split that is scored.

    Returns:
        mIoU of the most frequent class everywhere, and of the most frequent class of every
        position. Data that an earlier version packed has the first alone, from its counts of
        pixels; the training split, which they are learned on, has none.
    """
    if split == _LEARNED_ON:
        return {}
    stored = read_baselines(dataset, split)
    if stored is not None:
        return {f"{split}/baseline_{name}": getattr(stored, name) for name in BASELINES}
    learned, scored = dataset.class_pixels(_LEARNED_ON), dataset.class_pixels(split)
    if not (sum(learned) and sum(scored)):
        return {}
    majority = learned.index(max(learned))
    # Predicted everywhere, it has a union with all labels; classes without a pixel do not count.
    classes = sum(count > 0 for k, count in enumerate(scored) if k != majority) + 1
    return {f"{split}/baseline_majority": 100 * scored[majority] / sum(scored) / classes}


def is_degenerate(metrics: Mapping[str, float], split: str = "val") -> bool:
    """Whether a score is no better than an answer that ignores the image, or hardly so.

    Args:
        metrics: An evaluation's metrics, its baselines among them.
        split: The split that was scored.

    Returns:
        True where mIoU is not more than `MARGIN` above the best baseline; False where there is no
        score or no baseline to compare.
    """
    score = metrics.get(f"{split}/mIoU")
    known = known_baselines(metrics, split)
    return score is not None and bool(known) and score <= max(known.values()) + MARGIN


def known_baselines(metrics: Mapping[str, float], split: str) -> dict[str, float]:
    """Baseline -> mIoU in percent, of those that an evaluation's metrics hold."""
    names = {name: f"{split}/baseline_{name}" for name in BASELINES}
    return {name: metrics[key] for name, key in names.items() if key in metrics}


def describe_baselines(metrics: Mapping[str, float], split: str) -> str:
    """Baselines and verdict to stand behind a score: ` (majority 7.2, position 18.3)`.

    Args:
        metrics: An evaluation's metrics.
        split: The split that was scored.

    Returns:
        Empty where there are no baselines.
    """
    known = known_baselines(metrics, split)
    if not known:
        return ""
    parts = [f"{name} {value:.1f}" for name, value in known.items()]
    degenerate = ["degenerate"] if is_degenerate(metrics, split) else []
    return f" ({', '.join([*parts, *degenerate])})"


def drop_baselines(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without the baselines, which are the same at every evaluation."""
    return {name: value for name, value in metrics.items() if "/baseline_" not in name}
