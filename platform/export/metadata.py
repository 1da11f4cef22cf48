"""What an exported file says of itself: keys of version 1, described in docs/export.md."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ...datasets.spec import LabelSpace
from ...datasets.transforms import TransformConfig
from ..config.errors import ConfigError
from ..config.schema import ExperimentConfig

# Name of the entry in an ONNX file's metadata, and of the extra file in a .pt2.
KEY = "spikeseg"
PROGRAM_FILE = "spikeseg.json"
VERSION = 1


class ExportSource(NamedTuple):
    """A trained network and what belongs to it.

    Attributes:
        model: The segmentor, in eval mode on the CPU.
        config: Its experiment.
        space: Its classes.
        checkpoint: Name of the checkpoint, as the file records it.
    """

    model: nn.Module
    config: ExperimentConfig
    space: LabelSpace
    checkpoint: str


def describe_network(source: ExportSource) -> dict[str, Any]:
    """Entries of the metadata that hold for every form of a network."""
    config, space = source.config, source.space
    neuron = config.model.neuron
    return {
        "version": VERSION,
        "made_by": f"spikeseg {version('spikeseg')}",
        "checkpoint": source.checkpoint,
        "task": config.data.task,
        "classes": list(space.classes),
        "palette": [list(colour) for colour in space.palette],
        "ignore_label": space.ignore_label,
        "preprocessing": describe_preprocessing(config.data.transform),
        "network": {
            "decoder": config.model.decoder,
            "compat": config.model.compat,
            "timesteps": neuron.timesteps,
            "levels": neuron.levels,
            "dynamics": neuron.dynamics,
        },
    }


def describe_preprocessing(transform: TransformConfig) -> dict[str, Any]:
    """How an image becomes the file's input."""
    return {
        "layout": "NCHW",
        "channel_order": "RGB" if len(transform.mean) == 3 else "stored",
        "value_range": [0, 255],
        "mean": list(transform.mean),
        "std": list(transform.std),
        "resize_box": None if transform.test_box is None else list(transform.test_box),
        "resize_rule": (
            "factor = min(long side of the box / long side, short side / short side); sides times "
            "factor, rounded half up"
        ),
        "interpolation": transform.interpolation,
    }


def encode_metadata(metadata: dict[str, Any]) -> str:
    """Metadata as JSON text."""
    return json.dumps(metadata, ensure_ascii=False, allow_nan=False)


def decode_metadata(text: str | bytes | None, path: Path) -> dict[str, Any]:
    """Read a file's metadata.

    Args:
        text: JSON of `encode_metadata`; None where the file has none.
        path: The file, for errors.

    Raises:
        ConfigError: Where there is none, or of another version.
    """
    if not text:
        raise ConfigError(f"{path}: it has no metadata of spikeseg; `spikeseg export` writes them")
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: its metadata are no JSON: {error}") from error
    found = metadata.get("version") if isinstance(metadata, dict) else None
    if found != VERSION:
        raise ConfigError(f"{path}: its metadata have version {found!r}, this reads {VERSION}")
    return metadata
