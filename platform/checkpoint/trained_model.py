"""What a finished training leaves for MLflow's models: a folder, and a record in its journal."""

from pathlib import Path
from typing import Any

from ...datasets.packed.reader import PackedDataset
from ..config.schema import ExperimentConfig
from ..tracking.pages.run_page import name_neuron
from .checkpoint import Checkpoint
from .model_folder import EXAMPLE, FILES, write_model_folder

_FOLDER = "model"


def leave_model(
    run: Path, checkpoint: Checkpoint, dataset: PackedDataset, config: ExperimentConfig
) -> dict[str, Any]:
    """Write the folder of a run's model and describe it for the journal.

    Args:
        run: The run's folder.
        checkpoint: The checkpoint that counts.
        dataset: The packed data that it was chosen on.
        config: The experiment.

    Returns:
        The record, as `Journal.model` takes it.

    Raises:
        ValueError: Where the checkpoint or the first validation row is damaged.
        OSError: Where the folder cannot be written.
    """
    write_model_folder(run / _FOLDER, checkpoint, dataset.row("val", 0).image)
    neuron = config.model.neuron
    return {
        "name": name_neuron(config).replace(" ", "-"),
        "folder": _FOLDER,
        "files": list(FILES),
        "example": EXAMPLE,
        "step": checkpoint.step,
        "dataset": dataset.label_space.name,
        "digests": {split: digest[:36] for split, digest in dataset.split_digests.items()},
        "params": {
            "T": str(neuron.timesteps),
            "D": str(neuron.levels),
            "normalization": neuron.normalization,
        },
        "tags": {"recipe": config.name, "data_digest": dataset.digest},
        "register": config.tracking.register,
    }
