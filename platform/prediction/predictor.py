"""A network that labels images: batches of one size, or one large image tile by tile."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...datasets.transforms import find_test_size, resize_for_test
from ..checkpoint.run_folder import find_checkpoint
from ..config.errors import ConfigError
from ..config.recipes import load_resolved
from ..evaluation.class_scores import (
    InferenceSettings,
    plan_tiles,
    prepare_images,
    resize_score_bands,
    score_images,
    score_tile_bands,
    to_probabilities,
)
from ..evaluation.panoptic import predict_segments
from ..runs.predict_images import LEAST_SIDE, MOST_PIXELS, LoadedModel, Machine, load_model
from ..runs.predict_images import require_size as require_whole_size
from .network_forms import FormChoice, NetworkForm, open_form
from .outputs import OUTPUTS, PredictedImage, ResultWriter

DEFAULT_TILE = 1024
"""Sides of the tiles of an image above 4096 x 4096 pixels, where none was chosen."""


class PredictSettings(NamedTuple):
    """What decides the files of an image, besides the checkpoint.

    Attributes:
        outputs: Which of `OUTPUTS` are written.
        tile: Sides of tiles, in pixels at the network's input; None cuts only what is too large.
        form: Which form of the network computes.
    """

    outputs: tuple[str, ...]
    tile: int | None = None
    form: FormChoice = FormChoice(folded=True)

    def require_valid(self) -> None:
        """Refuse what no prediction can be made with.

        Raises:
            ConfigError: Names the option and the rule.
        """
        unknown = [name for name in self.outputs if name not in OUTPUTS]
        if unknown or not self.outputs:
            raise ConfigError(f"--write must name some of {', '.join(OUTPUTS)}, got {unknown}")
        if self.tile is not None and not 64 <= self.tile <= 4096:
            raise ConfigError(f"--tile must be from 64 to 4096 pixels, got {self.tile}")
        self.form.require_valid()


class Predictor:
    """Labels images with one form of a network.

    Args:
        loaded: The trained network.
        settings: What is made of an image.
        writer: Where its files go.
    """

    def __init__(
        self, loaded: LoadedModel, settings: PredictSettings, writer: ResultWriter
    ) -> None:
        self.loaded = loaded
        self._settings = settings
        self._writer = writer
        self._form: NetworkForm = open_form(loaded, settings.form)
        self._panoptic = loaded.resolved.config.data.task == "panoptic"
        if "panoptic" in settings.outputs and not (self._panoptic and self._form.model):
            raise ConfigError(
                "--write panoptic needs a run whose data.task is panoptic, in torch; this one is "
                f"{loaded.resolved.config.data.task}, {self._form.name}"
            )

    @property
    def channels(self) -> int:
        """Channels of an image that the network takes."""
        return self.loaded.resolved.config.model.in_channels

    def is_tiled(self, image: np.ndarray) -> bool:
        """Whether an image is cut into tiles: it is too large, or larger than a chosen tile."""
        height, width = self._find_size(image)
        tile = self._settings.tile
        if tile is not None and max(height, width) > tile:
            return True
        return height * width > MOST_PIXELS or image.shape[0] * image.shape[1] > MOST_PIXELS

    def require_size(self, image: np.ndarray, name: str) -> None:
        """Refuse an image that is too small for the network.

        Raises:
            ConfigError: Names it.
        """
        if min(self._find_size(image)) < LEAST_SIDE or not self.is_tiled(image):
            require_whole_size(self.loaded.resolved.config.data.transform, name, image)

    @torch.inference_mode()
    def predict_batch(self, images: list[np.ndarray], names: list[str]) -> list[PredictedImage]:
        """Label images of one size, shown whole.

        Args:
            images: (H, W, 3) uint8 each.
            names: What their files are called.
        """
        size = (images[0].shape[0], images[0].shape[1])
        if self._panoptic and self._form.model is not None and self._needs_segments:
            return self._predict_panoptic(images, names, size)
        scores = score_images(self._form.view, images, InferenceSettings())
        labels = scores.votes.argmax(1).byte().cpu().numpy()
        return [
            PredictedImage(image, label, self._keep(name, probabilities), None)
            for image, label, name, probabilities in zip(
                images, labels, names, scores.probabilities, strict=True
            )
        ]

    @torch.inference_mode()
    def predict_tiles(self, image: np.ndarray, name: str) -> PredictedImage:
        """Label a large image tile by tile; it has no segments.

        Args:
            image: (H, W, 3) uint8.
            name: What its files are called.
        """
        view = self._form.view
        resized = resize_for_test(view.transform, image)
        inner = (resized.shape[0], resized.shape[1])
        height, width = image.shape[:2]
        bands = score_tile_bands(
            view, resized, plan_tiles(inner, self._settings.tile or DEFAULT_TILE)
        )
        if inner != (height, width):
            whole = torch.cat([scores.cpu() for _, scores in bands], 1)
            bands = resize_score_bands(whole, (height, width))
        label = np.zeros((height, width), np.uint8)
        kept = None
        for top, scores in bands:
            rows = slice(top, top + scores.shape[1])
            label[rows] = scores.argmax(0).byte().cpu().numpy()
            if "probabilities" in self._settings.outputs:
                if kept is None:
                    kept = self._writer.open_probabilities(name, (len(scores), height, width))
                probabilities = to_probabilities(scores[None], joined=view.joined)[0]
                kept[:, rows] = probabilities.half().cpu().numpy()
        path = None if kept is None else Path(str(kept.filename))
        return PredictedImage(image, label, path, None)

    @property
    def _needs_segments(self) -> bool:
        return bool({"panoptic", "coco"} & set(self._settings.outputs))

    def _predict_panoptic(
        self, images: list[np.ndarray], names: list[str], size: tuple[int, int]
    ) -> list[PredictedImage]:
        loaded, model = self.loaded, self._form.model
        assert model is not None
        data = loaded.resolved.config.data
        inputs = prepare_images(data.transform, images).to(loaded.device)
        labels, segments = predict_segments(model, inputs, size, loaded.space, data)
        kept: list[Path | None] = [None] * len(images)
        if "probabilities" in self._settings.outputs:
            scores = score_images(self._form.view, images, InferenceSettings())
            kept = [self._keep(*item) for item in zip(names, scores.probabilities, strict=True)]
        arrays = labels.byte().cpu().numpy()
        return [PredictedImage(*item) for item in zip(images, arrays, kept, segments, strict=True)]

    def _keep(self, name: str, probabilities: Tensor) -> Path | None:
        if "probabilities" not in self._settings.outputs:
            return None
        array = probabilities.half().cpu().numpy()
        kept = self._writer.open_probabilities(name, array.shape)
        kept[:] = array
        return Path(str(kept.filename))

    def _find_size(self, image: np.ndarray) -> tuple[int, int]:
        transform = self.loaded.resolved.config.data.transform
        return find_test_size(transform, (image.shape[0], image.shape[1]))


def open_predictor(
    checkpoint: Path, settings: PredictSettings, output: Path, machine: Machine
) -> Predictor:
    """Load a network to predict with.

    Args:
        checkpoint: A checkpoint's or a run's folder.
        settings: What is made of an image.
        output: Folder of the results.
        machine: What computes.

    Raises:
        ConfigError: Where checkpoint and settings do not go together.
    """
    settings.require_valid()
    loaded = load_model(checkpoint, (), machine)
    return Predictor(loaded, settings, ResultWriter(output, settings.outputs, loaded.space))


def choose_outputs(checkpoint: Path) -> tuple[str, ...]:
    """What is written where nobody chose: label and overlay, of a panoptic run its segments too."""
    config = load_resolved(find_checkpoint(checkpoint).value("config", str)).config
    panoptic = ("panoptic",) if config.data.task == "panoptic" else ()
    return ("label", "overlay", *panoptic)
