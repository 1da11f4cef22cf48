"""Values of a recipe that are picked from the packed data: `from_data` in place of a value."""

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...datasets.packed.reader import PackedDataset
from ...datasets.spec import DataError
from .errors import ConfigError, find_origin
from .yaml_source import read_yaml

FROM_DATA = "from_data"
_IMAGENET_MEAN = [123.675, 116.28, 103.53]
_IMAGENET_STD = [58.395, 57.12, 57.375]
# A training input of a small network on a CPU: what camvid_tiny takes.
_MOST_PIXELS = 128 * 160
_SIDE_STEP, _LEAST_SIDE = 16, 32
_MEASURED_ROWS = 32
# Images that a training sees: passes over few, fewer passes over many (RESULTS.md, own images).
_PASSES, _LEAST_SEEN, _MOST_SEEN, _LEAST_PASSES = 200, 6000, 24_000, 10


class Picked(NamedTuple):
    """A value and why it was picked.

    Attributes:
        key: Dotted key.
        value: What YAML would hold.
        reason: What of the data it follows from.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class PackedFacts:
    """What of a packed data set decides values.

    Attributes:
        dataset: The opened data.
    """

    dataset: PackedDataset

    @cached_property
    def sizes(self) -> np.ndarray:
        """(N, 2) height and width of the training images."""
        rows = self.dataset.columns("train", ["height", "width"])
        return np.array([[row["height"], row["width"]] for row in rows])

    @cached_property
    def rows(self) -> int:
        """Training images."""
        return self.dataset.splits["train"]

    @cached_property
    def shares(self) -> np.ndarray:
        """(K,) share of each class among the labelled pixels of training."""
        pixels = np.array(self.dataset.class_pixels("train"), np.float64)
        return pixels / max(1.0, pixels.sum())

    @cached_property
    def colours(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel of the training images.

        Of data that was packed before these were counted: of 32 images at most, evenly apart.
        """
        if (counted := self.dataset.colours.get("train")) is not None:
            return list(counted["mean"]), list(counted["std"])
        chosen = np.unique(np.linspace(0, self.rows - 1, min(self.rows, _MEASURED_ROWS), dtype=int))
        channels = self.dataset.channels
        count, total, squares = 0, np.zeros(channels), np.zeros(channels)
        for index in chosen.tolist():
            pixels = self.dataset.row("train", index).image.reshape(-1, channels).astype(np.float64)
            count += len(pixels)
            total += pixels.sum(0)
            squares += (pixels**2).sum(0)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
        return np.round(mean, 2).tolist(), np.round(deviation, 2).tolist()


Read = Callable[[str], Any]


def pick_from_data(tree: MutableMapping[str, Any], origins: Mapping[str, str]) -> list[Picked]:
    """Pick every value that a recipe leaves to the data; the tree is left as it is.

    Args:
        tree: The merged recipe.
        origins: Dotted key -> where it was given; named in errors.

    Returns:
        The picked values in the order of their dependence; empty where the recipe leaves none.

    Raises:
        ConfigError: Where a value cannot be picked, or the data cannot be opened.
    """
    wanted = sorted(_find_wanted(tree, ""))
    if not wanted:
        return []
    for key in wanted:
        if key not in _PICKERS:
            raise ConfigError(
                f"{find_origin(key.split('.'), origins, 'configuration')}: {key}: {FROM_DATA} is "
                f"possible for {', '.join(_PICKERS)}"
            )
    facts = _open_facts(_read_value(tree, "data.path"), wanted, origins)
    picked: dict[str, Picked] = {}

    def read(key: str) -> Any:
        if key in picked:
            return picked[key].value
        value = _read_value(tree, key)
        # Needed by another value, and not asked for itself.
        return None if value == FROM_DATA else value

    for key, pick in _PICKERS.items():
        if key in wanted:
            value, reason = pick(facts, read)
            picked[key] = Picked(key, value, reason)
    return list(picked.values())


def _open_facts(path: Any, wanted: list[str], origins: Mapping[str, str]) -> PackedFacts:
    origin = find_origin(["data", "path"], origins, "configuration")
    asks = f"{len(wanted)} values such as {wanted[0]} are picked from the data"
    if not isinstance(path, str):
        raise ConfigError(f"{origin}: data.path: {asks}, so it must be a path, got {path!r}")
    try:
        dataset = PackedDataset.open(path if "://" in path else Path(path).absolute())
    except DataError as error:
        raise ConfigError(f"{origin}: data.path: {error} ({asks})") from error
    if not dataset.splits.get("train"):
        raise ConfigError(f"{origin}: data.path: {path} has no split train ({asks})")
    return PackedFacts(dataset)


def _pick_classes(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    return len(facts.shares), "classes of the data"


def _pick_channels(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    return facts.dataset.channels, "channels of the images"


def _pick_queries(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    return max(20, len(facts.shares) + 8), f"{len(facts.shares)} classes, and some to spare"


def _pick_box(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    height, width = (float(side) for side in np.median(facts.sizes, axis=0))
    tall = float((facts.sizes[:, 0] > facts.sizes[:, 1]).mean())
    shape = f"the middle training image is {width:.0f} x {height:.0f} (width x height)"
    if 0.2 < tall < 0.8 and height != width:
        height = width = math.sqrt(height * width)
        shape += f", {100 * tall:.0f} % are upright, so a square"
    factor = min(1.0, math.sqrt(_MOST_PIXELS / (height * width)))
    box = [max(_LEAST_SIDE, _SIDE_STEP * round(s * factor / _SIDE_STEP)) for s in (height, width)]
    if factor < 0.99:
        shape += f", shrunk to {100 * factor:.0f} % for a CPU: small things need a larger box"
    return box, shape


def _pick_crop(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    box = read("data.transform.box") or _pick_box(facts, read)[0]
    return [max(_SIDE_STEP, side) for side in box], "the size that images are fitted into"


def _require_channels(facts: PackedFacts, read: Read) -> None:
    wanted, channels = read("model.in_channels") or 3, facts.dataset.channels
    if isinstance(wanted, int) and wanted != channels:
        raise ConfigError(
            f"model.in_channels: {wanted}, but the images of {facts.dataset.path} have {channels} "
            "channels"
        )


def _pick_mean(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    _require_channels(facts, read)
    if (initial := _read_initial_colours(facts, read)) is not None:
        return initial[0], "what the initial weights were trained with"
    return facts.colours[0], "measured on the training images"


def _pick_deviation(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    if (initial := _read_initial_colours(facts, read)) is not None:
        return initial[1], "what the initial weights were trained with"
    return facts.colours[1], "measured on the training images"


def _pick_balance(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    present = facts.shares[facts.shares > 0]
    ratio = float(present.max() / present.min()) if present.size else 1.0
    reason = f"the most frequent class has {ratio:.1f} times the pixels of the rarest"
    return (0.5 if ratio >= 4 else 0.0), reason


def _pick_micro_batch(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    # Normalization sees a micro-batch; with few images, half of them at most.
    size = max(2, min(4, facts.rows // 2))
    return size, f"{facts.rows} training images"


def _pick_steps(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    seen = min(max(_PASSES * facts.rows, _LEAST_SEEN), max(_MOST_SEEN, _LEAST_PASSES * facts.rows))
    batch = _count_batch(facts, read)
    passes = seen / facts.rows
    reason = f"{passes:.0f} passes over {facts.rows} training images, {batch} a step"
    return math.ceil(seen / batch), reason


def _pick_evaluations(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    return max(1, _count_steps(facts, read) // 10), "ten evaluations"


def _pick_log(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    return max(1, _count_steps(facts, read) // 40), "forty progress lines"


def _pick_warmup(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    return _count_steps(facts, read) // 20, "a twentieth of the training"


def _pick_test(facts: PackedFacts, read: Read) -> tuple[Any, str]:
    has = bool(facts.dataset.splits.get("test"))
    return has, "the data has a test split" if has else "the data has no test split"


def _count_batch(facts: PackedFacts, read: Read) -> int:
    size = read("trainer.micro_batch_size") or _pick_micro_batch(facts, read)[0]
    number = read("trainer.micro_batches") or 1
    if not (isinstance(size, int) and isinstance(number, int)) or min(size, number) < 1:
        # Refused with its own sentence when the whole is checked.
        return 1
    return size * number


def _count_steps(facts: PackedFacts, read: Read) -> int:
    steps = read("trainer.max_steps") or _pick_steps(facts, read)[0]
    return steps if isinstance(steps, int) else 1


def _read_initial_colours(facts: PackedFacts, read: Read) -> tuple[list[float], list[float]] | None:
    """Mean and deviation that initial weights were trained with; None where there are none.

    A run's own stand in its configuration; published weights were trained with ImageNet's. None too
    where the data has another number of channels, which such weights do not fit.
    """
    source = read("init.segmentor") or read("init.backbone")
    if source is None or facts.dataset.channels != len(_IMAGENET_MEAN):
        return None
    if isinstance(source, str):
        path = Path(source).absolute()
        # A run's folder, or one of its checkpoints.
        for folder in (path, *path.parents[:2]):
            if (folder / "config.yaml").is_file():
                content, _ = read_yaml(folder / "config.yaml")
                mean, std = (_read_value(content, f"data.transform.{k}") for k in ("mean", "std"))
                if mean and std:
                    return mean, std
    return _IMAGENET_MEAN, _IMAGENET_STD


_PICKERS: Mapping[str, Callable[[PackedFacts, Read], tuple[Any, str]]] = {
    "model.num_classes": _pick_classes,
    "model.in_channels": _pick_channels,
    "model.query.num_queries": _pick_queries,
    "data.transform.box": _pick_box,
    "data.transform.test_box": _pick_box,
    "data.transform.crop": _pick_crop,
    "data.transform.mean": _pick_mean,
    "data.transform.std": _pick_deviation,
    "loss.class_balance": _pick_balance,
    "trainer.micro_batch_size": _pick_micro_batch,
    "trainer.max_steps": _pick_steps,
    "trainer.evaluate_every": _pick_evaluations,
    "trainer.log_every": _pick_log,
    "trainer.test": _pick_test,
    "optimizer.warmup_steps": _pick_warmup,
}
PICKED_KEYS = tuple(_PICKERS)
"""Fields that may be left to the data."""


def _find_wanted(tree: Any, prefix: str) -> list[str]:
    found = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found += _find_wanted(value, f"{name}.")
        elif isinstance(value, str) and value == FROM_DATA:
            found.append(name)
    return found


def _read_value(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node
