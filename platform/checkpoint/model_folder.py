"""A trained network as a folder of its own: weights, configuration, classes, one example image.

It is what a run leaves for MLflow's models: no optimizer, no pickle, and no data set are needed.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
from torch import Tensor

from ...datasets.packed.files import write_file
from .checkpoint import Checkpoint

WEIGHTS, CONFIG, CLASSES, EXAMPLE = (
    "model.safetensors",
    "config.yaml",
    "classes.json",
    "example.json",
)
FILES = (WEIGHTS, CONFIG, CLASSES, EXAMPLE)
"""Names of the files of such a folder."""
_EXAMPLE_SIDE = 64


class ModelFolder(NamedTuple):
    """What such a folder holds.

    Attributes:
        weights: The evaluated weights by name.
        config: The experiment, as `dump` wrote it.
        label_space: Its classes, as `LabelSpace.from_json` takes them.
    """

    weights: dict[str, Tensor]
    config: str
    label_space: dict


def write_model_folder(folder: Path, checkpoint: Checkpoint, image: np.ndarray) -> None:
    """Write a checkpoint's evaluated weights with all that is needed to use them.

    Args:
        folder: Where; made if it is not there.
        checkpoint: The checkpoint.
        image: (H, W, 3) uint8 RGB, of which the middle becomes the example.

    Raises:
        ValueError: Where the checkpoint is damaged.
        OSError: Where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / CONFIG, checkpoint.value("config", str))
    write_file(folder / CLASSES, json.dumps(checkpoint.value("label_space", dict)))
    top, left = (max(0, (side - _EXAMPLE_SIDE) // 2) for side in image.shape[:2])
    example = image[top : top + _EXAMPLE_SIDE, left : left + _EXAMPLE_SIDE]
    write_file(folder / EXAMPLE, json.dumps(example.tolist()))
    weights = {name: value.contiguous() for name, value in checkpoint.evaluated().items()}
    write_file(folder / WEIGHTS, safetensors.torch.save(weights))


def read_model_folder(folder: Path) -> ModelFolder:
    """Read what `write_model_folder` wrote.

    Raises:
        ValueError: Names the file that cannot be read.
    """
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        label_space = json.loads((folder / CLASSES).read_text())
        return ModelFolder(weights, (folder / CONFIG).read_text(), label_space)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder}: no readable model of spikeseg ({error})") from error
