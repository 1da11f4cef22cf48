"""What a finished checkpoint is used for: scores and label maps of image files."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ...datasets.spec import LabelSpace, Row
from ...datasets.transforms import TransformConfig, find_test_size, test_transform
from ...model.accounting.energy import PAPER_RULE, price_layers
from ...model.accounting.operations import OperationMeter
from ...model.metrics.segmentation import segmentation_scores
from ...model.postprocess import PanopticMap
from ...model.segmentor import build_uncalibrated_segmentor
from ..checkpoint.run_folder import find_checkpoint
from ..cluster.worker_group import OneWorker
from ..config.errors import COMMAND_LINE, ConfigError
from ..config.machine import adapt_to_machine
from ..config.recipes import Resolved, load_resolved, override, parse_overrides
from ..evaluation.panoptic import predict_segments
from ..evaluation.scores import (
    EvaluatedModel,
    class_table,
    predict_labels,
    score_split,
)
from ..train.preparation import choose_device, open_data, place_model

_log = logging.getLogger(__name__)

# What one forward pass may see: a larger input needs more memory than most machines have.
MOST_PIXELS = 4096 * 4096
# The network's coarsest stride.
LEAST_SIDE = 16


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


class Machine(NamedTuple):
    """What a command computes with, whatever machine its run was trained on.

    Attributes:
        device: `auto`, `cpu` or `cuda`; None takes what the machine has.
        threads: torch threads; None takes the run's, and no more than the machine lends.
    """

    device: str | None = None
    threads: int | None = None


RECORDED_MACHINE = Machine()


def load_model(
    checkpoint: Path, overrides: Sequence[str] = (), machine: Machine = RECORDED_MACHINE
) -> LoadedModel:
    """Load a checkpoint's evaluated weights.

    Args:
        checkpoint: A checkpoint's folder, or a run's, whose best checkpoint is taken.
        overrides: Items `field=value` over the run's configuration, such as `data.path=DIR`.
        machine: What computes.

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
    asked = {"trainer.device": machine.device, "trainer.threads": machine.threads}
    values |= {key: value for key, value in asked.items() if value is not None}
    resolved = adapt_to_machine(override(load_resolved(config), values, COMMAND_LINE), values)
    model = build_uncalibrated_segmentor(resolved.config.model)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{saved.path}: the weights do not fit the model: {error}") from error
    torch.set_num_threads(resolved.config.trainer.threads)
    device = choose_device(resolved.config.trainer.device)
    space = LabelSpace.from_json(label_space)
    model = place_model(model.eval(), resolved.config.trainer, device)
    return LoadedModel(saved.path, model, resolved, space, device)


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


def predict_image(
    loaded: LoadedModel, image: np.ndarray, name: object
) -> tuple[np.ndarray, PanopticMap | None]:
    """Train ids of an image's pixels, and its segments where the model's task is panoptic.

    Args:
        loaded: The model.
        image: (H, W, C) uint8, of the model's channels; RGB where these are three.
        name: What an error calls the image.

    Returns:
        (H, W) uint8, and None where the task is semantic.

    Raises:
        ConfigError: Where the image is too small or too large for the network.
    """
    data = loaded.resolved.config.data
    require_size(data.transform, name, image)
    inputs = test_transform(data.transform, Row("", image, image[..., 0]))
    images = torch.from_numpy(inputs)[None].to(loaded.device)
    size = (image.shape[0], image.shape[1])
    if data.task == "panoptic":
        labels, (segments,) = predict_segments(loaded.model, images, size, loaded.space, data)
    else:
        labels, segments = predict_labels(loaded.model, images, size), None
    return labels[0].byte().cpu().numpy(), segments


def require_size(config: TransformConfig, name: object, image: np.ndarray) -> None:
    """Refuse an image that is too small or too large to be seen by the network at once.

    Raises:
        ConfigError: Names the image, its size at the network's input and the rule.
    """
    height, width = find_test_size(config, (image.shape[0], image.shape[1]))
    if min(height, width) < LEAST_SIDE:
        raise ConfigError(
            f"{name}: {height} x {width} pixels would enter the network, each side needs at least "
            f"{LEAST_SIDE}"
        )
    if height * width > MOST_PIXELS:
        raise ConfigError(
            f"{name}: {height} x {width} pixels would enter the network, at most {MOST_PIXELS} "
            "may; resize or cut it"
        )
