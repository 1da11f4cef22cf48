"""What a finished checkpoint is used for: scores and label maps of image files."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ...datasets.images import read_photo
from ...datasets.pictures import overlay
from ...datasets.spec import LabelSpace, Row
from ...datasets.transforms import TransformConfig, fit_size, test_transform
from ...model.accounting.energy import PAPER_RULE, price_layers
from ...model.accounting.operations import OperationMeter
from ...model.metrics.segmentation import segmentation_scores
from ...model.postprocess import PanopticMap
from ...model.segmentor import build_uncalibrated_segmentor
from ..checkpoint.run_folder import find_checkpoint
from ..cluster.worker_group import OneWorker
from ..config.errors import COMMAND_LINE, ConfigError
from ..config.recipes import Resolved, load_resolved, override, parse_overrides
from ..evaluation.panoptic import predict_segments
from ..evaluation.scores import (
    EvaluatedModel,
    class_table,
    predict_labels,
    score_split,
)
from ..figures.panoptic import draw_segments
from ..train.preparation import choose_device, open_data

# What one forward pass may see: a larger input needs more memory than most machines have.
_MOST_PIXELS = 4096 * 4096
# The network's coarsest stride.
_LEAST_SIDE = 16


@dataclass(frozen=True)
class LoadedModel:
    """A model restored from a checkpoint, in eval mode.

    Attributes:
        path: The checkpoint's folder.
        model: The evaluated weights, in eval mode.
        resolved: The experiment that it came from, with overrides.
        space: Its classes.
        device: Where the model is.
    """

    path: Path
    model: nn.Module
    resolved: Resolved
    space: LabelSpace
    device: torch.device


def load_model(checkpoint: Path, overrides: Sequence[str] = ()) -> LoadedModel:
    """Load a checkpoint's evaluated weights.

    Args:
        checkpoint: A checkpoint's folder, or a run's, whose best checkpoint is taken.
        overrides: Items `field=value` over the run's configuration, such as `data.path=DIR`.

    Raises:
        ConfigError: Where there is no good checkpoint, or an override is wrong.
    """
    try:
        saved = find_checkpoint(checkpoint)
        weights, config = saved.evaluated(), saved.value("config", str)
        label_space = saved.value("label_space", dict)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    values = parse_overrides(overrides)
    resolved = override(load_resolved(config), values, COMMAND_LINE)
    model = build_uncalibrated_segmentor(resolved.config.model)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{saved.path}: the weights do not fit the model: {error}") from error
    device = choose_device(resolved.config.trainer.device)
    torch.set_num_threads(resolved.config.trainer.threads)
    space = LabelSpace.from_json(label_space)
    return LoadedModel(saved.path, model.eval().to(device), resolved, space, device)


def evaluate_checkpoint(
    checkpoint: Path, overrides: Sequence[str], *, split: str, operations: bool = True
) -> dict[str, Any]:
    """Score a checkpoint on a split, at label resolution, and count what it computes.

    Args:
        checkpoint: A checkpoint's or a run's folder.
        overrides: Items `field=value`.
        split: Name of the split.
        operations: Whether every image's operations are counted.

    Returns:
        `checkpoint`, `rows`, `metrics` in percent, `classes` and `confusion`; where operations are
        counted `energy_mj`, one image's energy under the rule `paper`, and `layers`.

    Raises:
        ConfigError: Where checkpoint, data or split are wrong.
    """
    loaded = load_model(checkpoint, overrides)
    config = loaded.resolved.config
    dataset = open_data(config)
    if not dataset.splits.get(split):
        raise ConfigError(
            f"split {split!r} has no rows in {config.data.path}; there are: "
            f"{', '.join(dataset.splits)}"
        )
    evaluated = EvaluatedModel(loaded.model, dataset, config, loaded.device)
    meter = OperationMeter(loaded.model, bitwise=False) if operations else None
    with meter or nullcontext():
        metrics, counts = score_split(evaluated, split, group=OneWorker())
    scores = segmentation_scores(counts.confusion)
    metrics |= {f"{split}/mDice": scores.mdice, f"{split}/mFscore": scores.mfscore}
    priced = None if meter is None else price_layers(meter.rows(), PAPER_RULE)
    counted = {} if priced is None else {"energy_mj": priced.total_mj, "layers": priced.tabulate()}
    return {
        "checkpoint": str(loaded.path),
        "data_digest": dataset.digest,
        "rows": dataset.splits[split],
        "metrics": metrics,
        "classes": class_table(loaded.space, counts),
        "confusion": counts.confusion.tolist(),
        **counted,
    }


def predict(checkpoint: Path, images: Sequence[Path], output: Path) -> list[Path]:
    """Write a palette PNG of labels and an overlay PNG for every image.

    Of a panoptic model also `_panoptic.png`, a picture of the segments; `_segments.png`, whose
    16-bit values are 0 for none and else a segment's id; and `_segments.json`, their classes.

    Args:
        checkpoint: A checkpoint's or a run's folder.
        images: Image files; all are read before the first is written.
        output: Folder to write into; made if it is not there.

    Returns:
        The files written.

    Raises:
        ConfigError: Where two images have the same name, or a file cannot be read.
    """
    loaded = load_model(checkpoint)
    stems = [path.stem for path in images]
    for path in images:
        if stems.count(path.stem) > 1:
            raise ConfigError(f"{path}: another image has the same name; their files would collide")
    pixels = [read_photo(path) for path in images]
    for path, image in zip(images, pixels, strict=True):
        _require_size(loaded.resolved.config.data.transform, path, image)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written ({error.strerror})") from error
    written = []
    for path, image in zip(images, pixels, strict=True):
        label, segments = predict_image(loaded, image, path)
        pictures = {"label": _make_palette_picture(label, loaded.space)}
        pictures["overlay"] = Image.fromarray(overlay(image, label, loaded.space))
        if segments is not None:
            numbers = segments.segments.cpu().numpy()
            drawn = draw_segments(image, numbers, segments.classes, loaded.space)
            pictures["panoptic"] = Image.fromarray(drawn)
            pictures["segments"] = Image.fromarray(numbers.astype(np.uint16))
        for name, picture in pictures.items():
            written.append(output / f"{path.stem}_{name}.png")
            picture.save(written[-1])
        if segments is not None:
            written.append(output / f"{path.stem}_segments.json")
            written[-1].write_text(json.dumps(_list_segments(segments, loaded.space), indent=1))
    return written


def predict_image(
    loaded: LoadedModel, image: np.ndarray, name: object
) -> tuple[np.ndarray, PanopticMap | None]:
    """Train ids of an image's pixels, and its segments where the model's task is panoptic.

    Args:
        loaded: The model.
        image: RGB, (H, W, 3) uint8.
        name: What an error calls the image.

    Returns:
        (H, W) uint8, and None where the task is semantic.

    Raises:
        ConfigError: Where the image is too small or too large for the network.
    """
    data = loaded.resolved.config.data
    _require_size(data.transform, name, image)
    inputs = test_transform(data.transform, Row("", image, image[..., 0]))
    images = torch.from_numpy(inputs)[None].to(loaded.device)
    size = (image.shape[0], image.shape[1])
    if data.task == "panoptic":
        labels, (segments,) = predict_segments(loaded.model, images, size, loaded.space, data)
    else:
        labels, segments = predict_labels(loaded.model, images, size), None
    return labels[0].byte().cpu().numpy(), segments


def _make_palette_picture(label: np.ndarray, space: LabelSpace) -> Image.Image:
    picture = Image.fromarray(label, "P")
    picture.putpalette([value for colour in space.palette for value in colour])
    return picture


def _list_segments(segments: PanopticMap, space: LabelSpace) -> list[dict[str, Any]]:
    return [
        {"id": number, "class": space.classes[kind], "train_id": kind, "score": round(score, 4)}
        for number, (kind, score) in enumerate(
            zip(segments.classes, segments.scores, strict=True), start=1
        )
    ]


def _require_size(config: TransformConfig, name: object, image: np.ndarray) -> None:
    size = (image.shape[0], image.shape[1])
    height, width = size if config.test_box is None else fit_size(size, config.test_box)
    if min(height, width) < _LEAST_SIDE:
        raise ConfigError(
            f"{name}: {height} x {width} pixels would enter the network, each side needs at least "
            f"{_LEAST_SIDE}"
        )
    if height * width > _MOST_PIXELS:
        raise ConfigError(
            f"{name}: {height} x {width} pixels would enter the network, at most {_MOST_PIXELS} "
            "may; resize or cut it"
        )
