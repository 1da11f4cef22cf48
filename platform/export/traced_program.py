"""A segmentor as one program of plain torch operations: images to class scores."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...model.config import ModelConfig
from ...model.deployment.fold import fold
from ...model.deployment.traceable import make_traceable
from ...model.postprocess import semantic_logits
from ...model.prediction import MaskPrediction
from ..config.errors import ConfigError

Outputs = Literal["scores", "prediction"]
# The smallest sides that a program with free sizes takes: two positions at the coarsest stride.
LEAST_FREE_SIDE = 17


class ExportedForm(nn.Module):
    """The folded form of a segmentor with tensors as outputs.

    Where the neurons keep no state, every step of an image that is repeated over T computes the
    same: the program computes one.

    Args:
        model: A segmentor with its trained statistics, on the CPU; it is left as it is.
        outputs: `scores`: class scores at the input's size; `prediction`: what the last layer
            predicts, class logits and mask logits of the query decoder, logits of the FPN head.

    Attributes:
        names: Names of the outputs.
        computed_steps: Time steps that the program computes.
        channels: Channels of its images.
    """

    def __init__(self, model: nn.Module, outputs: Outputs = "scores") -> None:
        super().__init__()
        config: Any = model.config
        single = config.neuron.dynamics == "stateless"
        model = copy.deepcopy(model).eval()
        if single:
            neuron = dataclasses.replace(config.neuron, timesteps=1)
            model.config = dataclasses.replace(config, neuron=neuron, check_finite=False)  # pyright: ignore[reportAttributeAccessIssue]
        self.segmentor = fold(model)
        make_traceable(self.segmentor)
        self.outputs = outputs
        self.computed_steps = 1 if single else config.neuron.timesteps
        queries = config.decoder == "query"
        whole = ("class_logits", "mask_logits") if queries else ("logits",)
        self.channels: int = config.in_channels
        self.names = ("scores",) if outputs == "scores" else whole

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalized images (B, C, H, W) to (B, K, H, W) scores, or to the prediction."""
        prediction = self.segmentor(images)
        if self.outputs == "scores":
            return (semantic_logits(prediction, (images.shape[-2], images.shape[-1])),)
        if isinstance(prediction, MaskPrediction):
            return prediction.class_logits[-1], prediction.mask_logits[-1]
        return (prediction.logits,)


def has_free_size(config: ModelConfig) -> bool:
    """Whether one program serves all image sizes.

    The raw reshapes of `compat: published` turn channels into pixels of one image size.
    """
    return config.compat == "corrected" or config.decoder == "fpn"


def trace(
    form: ExportedForm, size: tuple[int, int], *, free_size: bool
) -> torch.export.ExportedProgram:
    """Trace the program of a form, for any number of images.

    Args:
        form: The form.
        size: Height and width of the images to trace with.
        free_size: Whether other sizes are taken too.

    Raises:
        ConfigError: Where the size is too small to be free.
    """
    if free_size and min(size) < LEAST_FREE_SIDE:
        raise ConfigError(
            f"size: a program of any size is traced with sides of at least {LEAST_FREE_SIDE}, got "
            f"{size[0]} x {size[1]}"
        )
    axes = (0, 2, 3) if free_size else (0,)
    dynamic = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    parameter = next(form.parameters())
    # A batch of 1 would be taken for a constant.
    images = torch.zeros(2, form.channels, *size, dtype=parameter.dtype)
    with torch.no_grad():
        return torch.export.export(form, (images,), dynamic_shapes=(dynamic,))


def save_program(
    program: torch.export.ExportedProgram, path: Path, metadata: dict[str, str]
) -> None:
    """Write a `.pt2` file; `torch.export.load` reads it, its metadata as `extra_files`."""
    torch.export.save(program, path, extra_files=metadata)
