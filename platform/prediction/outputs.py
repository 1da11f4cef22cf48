"""Result files of one image: label, overlay, probabilities, panoptic, COCO; each written whole."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...datasets.encoded_pixels import encode_png
from ...datasets.packed.files import place_file, temporary_beside, write_file
from ...datasets.pictures import overlay, view_rgb
from ...datasets.spec import LabelSpace
from ...model.postprocess import PanopticMap
from ..figures.panoptic import draw_segments
from .coco import list_annotations, list_categories

OUTPUTS = ("label", "overlay", "probabilities", "panoptic", "coco")


class PredictedImage(NamedTuple):
    """What a network says of one image.

    Attributes:
        image: (H, W, 3) uint8.
        label: (H, W) uint8 train ids.
        probabilities: File with (K, H, W) float16, not yet under its name; None where not asked.
        segments: Of a panoptic network.
    """

    image: np.ndarray
    label: np.ndarray
    probabilities: Path | None
    segments: PanopticMap | None


class ResultWriter:
    """Writes the files of images below one folder.

    Args:
        folder: The folder; folders below it are made as names need them.
        outputs: Which of `OUTPUTS` are written.
        space: Names and colours of the classes.
    """

    def __init__(self, folder: Path, outputs: tuple[str, ...], space: LabelSpace) -> None:
        self._folder = folder
        self._outputs = outputs
        self._space = space

    def path(self, name: str, ending: str) -> Path:
        """Path of a result file, its folder made."""
        path = self._folder / f"{name}_{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def open_probabilities(self, name: str, shape: tuple[int, int, int]) -> np.memmap[Any, Any]:
        """Make a (K, H, W) float16 array on disk, to be filled; its file is temporary."""
        path = temporary_beside(self.path(name, "probabilities.npy"))
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)

    def write(self, name: str, predicted: PredictedImage) -> list[str]:
        """Write the files of an image.

        Args:
            name: What they are called, without endings.
            predicted: The prediction.

        Returns:
            Paths relative to the folder.
        """
        written = []
        makers: Mapping[str, Callable[[], bytes]] = self._list_makers(predicted)
        for ending, make in makers.items():
            path = self.path(name, ending)
            write_file(path, make())
            written.append(path)
        if predicted.probabilities is not None:
            written.append(self.path(name, "probabilities.npy"))
            place_file(predicted.probabilities, written[-1])
        return [str(path.relative_to(self._folder)) for path in written]

    def _list_makers(self, predicted: PredictedImage) -> dict[str, Callable[[], bytes]]:
        image, label, _, segments = predicted
        makers: dict[str, Callable[[], bytes]] = {}
        if "label" in self._outputs:
            makers["label.png"] = lambda: encode_label(label, self._space)
        if "overlay" in self._outputs:
            makers["overlay.png"] = lambda: encode_png(overlay(view_rgb(image), label, self._space))
        if "panoptic" in self._outputs and segments is not None:
            numbers = segments.segments.cpu().numpy()
            drawn = draw_segments(view_rgb(image), numbers, segments.classes, self._space)
            makers["panoptic.png"] = lambda: encode_png(drawn)
            makers["segments.png"] = lambda: encode_png(numbers.astype(np.uint16))
            listed = list_segments(segments, self._space)
            makers["segments.json"] = lambda: json.dumps(listed, indent=1).encode()
        if "coco" in self._outputs:
            makers["coco.json"] = lambda: self._encode_coco(predicted)
        return makers

    def _encode_coco(self, predicted: PredictedImage) -> bytes:
        height, width = predicted.label.shape
        annotations = list_annotations(predicted.label, predicted.segments, self._space)
        numbered = [
            {**annotation, "id": number, "image_id": 1}
            for number, annotation in enumerate(annotations, start=1)
        ]
        content = {
            "images": [{"id": 1, "height": height, "width": width}],
            "annotations": numbered,
            "categories": list_categories(self._space),
        }
        return json.dumps(content).encode()


def encode_label(label: np.ndarray, space: LabelSpace) -> bytes:
    """A palette PNG of (H, W) uint8 train ids."""
    picture = Image.fromarray(label, "P")
    picture.putpalette([value for colour in space.palette for value in colour])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def list_segments(segments: PanopticMap, space: LabelSpace) -> list[dict[str, Any]]:
    """Id, class, train id and score of every segment, as JSON types."""
    return [
        {"id": number, "class": space.classes[kind], "train_id": kind, "score": round(score, 4)}
        for number, (kind, score) in enumerate(
            zip(segments.classes, segments.scores, strict=True), start=1
        )
    ]
