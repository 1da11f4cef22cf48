"""What a finished checkpoint is used for: scores, label maps of image files, energy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..datasets.images import read_photo
from ..datasets.spec import LabelSpace, Row
from ..datasets.transforms import test_transform
from ..model.metrics.segmentation import segmentation_scores
from ..model.segmentor import build_segmentor
from . import figures
from .config import ConfigError, Resolved, load_resolved, override
from .train.checkpoint import find_checkpoint
from .train.evaluate import (
    class_table,
    count_split,
    measure_energy,
    predict_labels,
    score_metrics,
)
from .train.reduction import OneWorker
from .train.setup import choose_device, open_data
from .yaml_source import parse_value


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint brought back to life.

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
        found = find_checkpoint(checkpoint)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    values = {}
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator:
            raise ConfigError(f"command line: {item!r} is not of the form field=value")
        values[key] = parse_value(text)
    resolved = override(load_resolved(found.state["config"]), values, "command line")
    model = build_segmentor(resolved.config.model)
    try:
        model.load_state_dict(found.evaluated())
    except RuntimeError as error:
        raise ConfigError(f"{found.path}: the weights do not fit the model: {error}") from error
    device = choose_device(resolved.config.trainer.device)
    torch.set_num_threads(resolved.config.trainer.threads)
    space = LabelSpace.from_json(found.state["label_space"])
    return LoadedModel(found.path, model.eval().to(device), resolved, space, device)


def evaluate_checkpoint(
    checkpoint: Path, overrides: Sequence[str], *, split: str
) -> dict[str, Any]:
    """Score a checkpoint on a split, at label resolution.

    Args:
        checkpoint: A checkpoint's or a run's folder.
        overrides: Items `field=value`.
        split: Name of the split.

    Returns:
        `checkpoint`, `rows`, `metrics` in percent, `classes` and `confusion`.

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
    counts = count_split(
        loaded.model, dataset, split, data=config.data, device=loaded.device, group=OneWorker()
    )
    scores = segmentation_scores(counts)
    metrics = score_metrics(split, scores)
    metrics |= {f"{split}/mDice": scores.mdice, f"{split}/mFscore": scores.mfscore}
    return {
        "checkpoint": str(loaded.path),
        "data_digest": dataset.digest,
        "rows": dataset.splits[split],
        "metrics": metrics,
        "classes": class_table(loaded.space.classes, counts),
        "confusion": counts.tolist(),
    }


def predict(checkpoint: Path, images: Sequence[Path], output: Path) -> list[Path]:
    """Write a palette PNG of labels and an overlay PNG for every image.

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
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written ({error.strerror})") from error
    palette = [value for colour in loaded.space.palette for value in colour]
    written = []
    for path, image in zip(images, pixels, strict=True):
        row = Row(path.stem, image, image[..., 0])
        pixels_in = torch.from_numpy(test_transform(loaded.resolved.config.data.transform, row))
        size = (image.shape[0], image.shape[1])
        predicted = predict_labels(loaded.model, pixels_in[None].to(loaded.device), size)
        label = predicted[0].byte().cpu().numpy()
        picture = Image.fromarray(label, "P")
        picture.putpalette(palette)
        for name, content in (
            (f"{path.stem}_label.png", picture),
            (
                f"{path.stem}_overlay.png",
                Image.fromarray(figures.overlay(image, label, loaded.space)),
            ),
        ):
            content.save(output / name)
            written.append(output / name)
    return written


def energy_of_checkpoint(checkpoint: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Theoretical energy of one image on validation rows, as JSON types.

    Args:
        checkpoint: A checkpoint's or a run's folder.
        overrides: Items `field=value`.

    Raises:
        ConfigError: Where checkpoint or data are wrong.
    """
    loaded = load_model(checkpoint, overrides)
    config = loaded.resolved.config
    report = measure_energy(
        loaded.model,
        open_data(config),
        data=config.data,
        images=config.trainer.energy_images,
        device=loaded.device,
    )
    return asdict(report)
