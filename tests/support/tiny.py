"""A training of seconds: the published architecture at its smallest, on a few generated shapes."""

import json
from pathlib import Path
from typing import Any

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.platform.config.schema import ExperimentConfig

ROWS = 11


def pack_shapes(folder: Path) -> Path:
    """Eleven training rows (no multiple of a batch), five for val and two for test."""
    options = ShapesOptions(size=(32, 32), train=ROWS, val=5, test=2, objects=(1, 2))
    pack("shapes", Shapes(options), Path(), folder, workers=1)
    return folder


def experiment(data: Path, *, decoder: str = "query", **trainer: Any) -> ExperimentConfig:
    """Seven steps of six micro-batches of one row, three evaluations, EMA on.

    Args:
        data: Folder of `pack_shapes`.
        decoder: `query` or the quicker `fpn`.
        trainer: Fields of the trainer section over the ones here.
    """
    query = {"width": 8, "num_queries": 4, "num_heads": 2, "num_groups": 2}
    layers = {"num_encoder_layers": 1, "encoder_hidden": 8, "num_decoder_layers": 1}
    tree = {
        "name": "tiny",
        "seed": 5,
        "data": {
            "path": str(data),
            "transform": {"crop": [32, 32], "max_category_ratio": 1.0, "photometric": True},
            "shuffle_window": 4,
        },
        "model": {
            "num_classes": 9,
            "neuron": {"timesteps": 1, "levels": 4, "normalization": "levels"},
            "backbone": {
                "family": "meta_spikeformer",
                "embed_dims": [4, 4, 8, 8],
                "depths": [1, 0],
                "num_heads": 2,
                "mlp_ratio": 1,
            },
            "decoder": decoder,
            "query": {**query, **layers, "decoder_hidden": 8, "alpha": None},
            "fpn": {"width": 8},
        },
        "loss": {"mask_resolution": "prediction"},
        "optimizer": {"lr": 2e-3, "weight_decay": 0.005, "clip_norm": 1.0, "warmup_steps": 2},
        "trainer": {
            "max_steps": 7,
            "micro_batch_size": 1,
            "micro_batches": 6,
            "evaluate_every": 3,
            "log_every": 2,
            "ema_decay": 0.9,
            "energy_images": 1,
            **trainer,
        },
        "tracking": {"images": 0},
    }
    return ExperimentConfig.model_validate_json(json.dumps(tree))
