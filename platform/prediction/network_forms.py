"""A finished network in one of its forms: trained, folded, or an exported file in a runtime."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...model.deployment.fold import fold
from ...model.postprocess import semantic_logits
from ..config.errors import ConfigError
from ..evaluation.class_scores import NetworkView, resize_scores
from ..export.open_exported import open_exported
from ..runs.predict_images import LoadedModel

Runtime = Literal["torch", "onnx", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx", "openvino")


class FormChoice(NamedTuple):
    """Which form of a network computes.

    Attributes:
        folded: Whether torch runs the inference form with folded weights.
        runtime: `torch`, or the runtime of an exported file.
        exported: The exported file; given exactly where the runtime is not torch.
    """

    folded: bool = False
    runtime: Runtime = "torch"
    exported: Path | None = None

    @property
    def name(self) -> str:
        """`trained`, `folded`, `onnx` or `openvino`."""
        if self.runtime != "torch":
            return self.runtime
        return "folded" if self.folded else "trained"

    def require_valid(self) -> None:
        """Refuse a choice that does not go together.

        Raises:
            ConfigError: Names the options and the rule.
        """
        if (self.runtime == "torch") != (self.exported is None):
            raise ConfigError(
                "--exported FILE is given exactly with --runtime onnx or openvino; "
                "`spikeseg export` writes the file"
            )
        if self.folded and self.runtime != "torch":
            raise ConfigError("--folded is a form of torch: leave out --folded or --runtime")
        if self.exported is not None and not self.exported.exists():
            raise ConfigError(f"--exported: {self.exported}: no such file")


def choose_form(folded: bool | None, runtime: Runtime, exported: Path | None) -> FormChoice:
    """The form that was asked for, or the fastest of float32 that needs nothing installed.

    Args:
        folded: Whether weights are folded; None where nobody said, which folds them in torch.
        runtime: What runs the network.
        exported: The exported file, if any.

    Raises:
        ConfigError: Where the choice does not go together.
    """
    if folded is False and runtime != "torch":
        raise ConfigError("--trained is a form of torch: leave out --trained or --runtime")
    choice = FormChoice(runtime == "torch" if folded is None else folded, runtime, exported)
    choice.require_valid()
    return choice


class NetworkForm(NamedTuple):
    """A network that scores images.

    Attributes:
        name: Which form it is.
        view: How images are shown to it.
        model: The torch model; None of an exported file.
    """

    name: str
    view: NetworkView
    model: nn.Module | None


def open_form(loaded: LoadedModel, choice: FormChoice) -> NetworkForm:
    """Open one form of a network.

    Args:
        loaded: The trained network.
        choice: Which form.

    Raises:
        ConfigError: Where the choice does not go together, the network has no folded form, or the
            runtime is missing.
    """
    choice.require_valid()
    transform = loaded.resolved.config.data.transform
    joined = loaded.resolved.config.model.decoder == "query"
    if choice.exported is not None:
        assert choice.runtime != "torch"
        return _open_exported(loaded, choice, joined=joined)
    model = loaded.model
    if choice.folded:
        try:
            model = fold(model)
        except ValueError as error:
            raise ConfigError(f"{loaded.path}: {error}") from error

    def score(images: Tensor) -> Tensor:
        return semantic_logits(model(images), (images.shape[-2], images.shape[-1]))

    return NetworkForm(choice.name, NetworkView(score, joined, transform, loaded.device), model)


def _open_exported(loaded: LoadedModel, choice: FormChoice, *, joined: bool) -> NetworkForm:
    assert choice.exported is not None
    assert choice.runtime != "torch"
    threads = torch.get_num_threads()
    opened = open_exported(choice.exported, choice.runtime, threads=threads)
    classes = opened.metadata.get("classes")
    if classes is not None and tuple(classes) != loaded.space.classes:
        raise ConfigError(
            f"--exported: {choice.exported}: was exported from a network of other classes "
            f"({len(classes)}) than the run's ({len(loaded.space.classes)})"
        )

    def score(images: Tensor) -> Tensor:
        # The same values as torch sees: normalized float32.
        scores = torch.as_tensor(opened.predict_logits(images.cpu().numpy()))
        return resize_scores(scores, (images.shape[-2], images.shape[-1]))

    transform = loaded.resolved.config.data.transform
    view = NetworkView(score, joined, transform, torch.device("cpu"))
    return NetworkForm(choice.name, view, None)
