"""A trained run as an object that labels image arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...model.deployment.fold import fold
from ..config.schema import ExperimentConfig
from .find_run import find_run
from .list_runs import checkpoint_metrics
from .predict_images import LoadedModel, load_model, predict_image


@dataclass(frozen=True)
class LoadedRun:
    """A run's best checkpoint, or the one that was named, ready to predict.

    Attributes:
        word: What other commands call the run.
        checkpoint: The checkpoint's folder.
        scores: What was measured at this checkpoint, names as in MLflow: `val/mIoU` in percent,
            `energy/mJ`, ...; `test/mIoU` where the test split was scored with it.
    """

    word: str
    checkpoint: Path
    scores: dict[str, float]
    _loaded: LoadedModel

    @property
    def config(self) -> ExperimentConfig:
        """The experiment's configuration, with the overrides that the run was loaded with."""
        return self._loaded.resolved.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class id."""
        return tuple(self._loaded.space.classes)

    @property
    def palette(self) -> np.ndarray:
        """Colour of each class id, (K, 3) uint8; `palette[labels]` is a picture."""
        return np.array(self._loaded.space.palette, np.uint8)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Label every pixel of an image.

        Args:
            image: (H, W, C) uint8 of any size that the network takes; RGB where C, the model's
                `in_channels`, is 3.

        Returns:
            Class ids, (H, W) uint8.

        Raises:
            ValueError: Where the array has another shape or type, or the image is too small or
                too large.
        """
        channels = self.config.model.in_channels
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(
                f"image must be an array (H, W, {channels}) of uint8, got {image.shape} of "
                f"{image.dtype}"
            )
        return predict_image(self._loaded, image, "image")[0]


def load_run(word: str, storage: Path, overrides: Sequence[str] = ()) -> LoadedRun:
    """Load a run in the folded form: faster, a few labels in a thousand may differ by rounding.

    Args:
        word: As `find_run` takes it.
        storage: Folder of all runs.
        overrides: Items `field=value` over the run's configuration, such as `trainer.device=cpu`.

    Raises:
        ConfigError: Where the word names no run with a good checkpoint, or an override is wrong.
    """
    found = find_run(word, storage)
    loaded = load_model(found.weights, overrides)
    loaded = replace(loaded, model=fold(loaded.model))
    return LoadedRun(found.word, loaded.path, checkpoint_metrics(loaded.path), loaded)
