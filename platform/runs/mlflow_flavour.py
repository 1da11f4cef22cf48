"""Loads a model that a run logged: `mlflow.pyfunc.load_model(...).predict(images)`.

MLflow finds this file by its name in the model's `MLmodel`; neither storage nor data of the run
are needed, and nothing is unpickled.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.spec import LabelSpace
from ...model.segmentor import build_uncalibrated_segmentor
from ..checkpoint.model_folder import read_model_folder
from ..config.recipes import Resolved, load_resolved, override
from ..train.preparation import choose_device
from .predict_images import LoadedModel, predict_image


class SegmentationModel:
    """A network that labels images; MLflow calls `predict`.

    Args:
        loaded: The network.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class id."""
        return tuple(self._loaded.space.classes)

    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Label every pixel of some images of one size.

        Args:
            images: RGB, (B, H, W, 3) or (H, W, 3) uint8.
            params: MLflow's; there are none.

        Returns:
            Class ids, (B, H, W) uint8.

        Raises:
            ValueError: Where the array has another shape or type.
        """
        del params
        images = np.asarray(images)
        batch = images[None] if images.ndim == 3 else images
        if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != np.uint8:
            raise ValueError(
                "images must be an array (B, H, W, 3) or (H, W, 3) of uint8, got "
                f"{images.shape} of {images.dtype}"
            )
        labels = [
            predict_image(self._loaded, image, f"image {number}")[0]
            for number, image in enumerate(batch)
        ]
        return np.stack(labels) if labels else np.zeros(batch.shape[:3], np.uint8)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> SegmentationModel:
    """What MLflow calls with the folder of the model's data."""
    del model_config
    folder = Path(path)
    content = read_model_folder(folder)
    config = load_resolved(content.config).config
    # Where it was trained there may have been a GPU.
    resolved = override(Resolved(config, {}), {"trainer.device": "auto"}, "MLflow")
    model = build_uncalibrated_segmentor(resolved.config.model)
    try:
        model.load_state_dict(content.weights)
    except RuntimeError as error:
        raise ValueError(f"{folder}: the weights do not fit the model: {error}") from error
    device = choose_device(resolved.config.trainer.device)
    space = LabelSpace.from_json(content.label_space)
    return SegmentationModel(LoadedModel(folder, model.eval().to(device), resolved, space, device))
