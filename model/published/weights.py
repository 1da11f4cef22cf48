"""Load, convert and write published checkpoints without running code from files."""

import json
import logging
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .architecture import ClassifierNeuron, Recognized, build_recognized, from_json, recognize
from .inert_pickle import load_inert
from .keys import BACKBONE, DECODER, KeyReport, compare_keys, to_published_name
from .safetensors_file import UNREADABLE, load_tensors
from .wrappings import find_state_dict, unwrap_keys

_log = logging.getLogger(__name__)

_HEADS = ("head.", "head_kd.", DECODER, "neck.")
_AUXILIARY = ".pixel_head."
_TENSORS, _RECORD = "model.safetensors", "model.json"


def load_published(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    name: str = "weights",
    placeholders: list[str] | None = None,
) -> KeyReport:
    """Load a published state dict into a model; what does not fit is reported, not loaded.

    Args:
        model: A segmentor, one of its parts, or a classifier; on the meta device nothing is loaded.
        state: Published keys -> tensors. A bare ImageNet backbone's keys are found below
            `backbone.`; a segmentor leaves out its classifier (`head.*`, `head_kd.*`) and reports
            it as unexpected.
        name: What they came from.
        placeholders: Reported along.

    Raises:
        ValueError: Where a key is given in two forms, or a value that fits is not finite.
    """
    report, fits = compare_keys(model, state, name=name, placeholders=placeholders)
    _load(model, fits)
    return report


def _load(model: nn.Module, fits: Mapping[str, Tensor]) -> None:
    if not any(value.is_meta for value in model.state_dict().values()):
        model.load_state_dict(fits, strict=False)


def load_backbone(model: nn.Module, path: Path) -> KeyReport:
    """Start a segmentor from an ImageNet checkpoint or another segmentor's backbone.

    Args:
        model: A segmentor; nothing but its backbone is loaded.
        path: A `.pth` or safetensors file, or a folder that `convert_published` wrote.

    Returns:
        The report; what is missing are the decoder's keys, what is unexpected the classifier's or
        the other segmentor's decoder's.

    Raises:
        ValueError: Where a key of the backbone is missing, given in two forms or of another shape,
            or a value is not finite; the model is then as it was.
    """
    state, placeholders = read_weights(path)
    return load_backbone_weights(model, state, name=str(path), placeholders=placeholders)


def load_backbone_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    name: str,
    placeholders: list[str] | None = None,
) -> KeyReport:
    """Load the backbone of weights that have been read; as `load_backbone`.

    Args:
        model: A segmentor; nothing but its backbone is loaded.
        state: Keys -> tensors, published keys or ours.
        name: What they came from.
        placeholders: Reported along.
    """
    heads = [key for key in state if key.startswith(_HEADS)]
    backbone = {key: value for key, value in state.items() if not key.startswith(_HEADS)}
    report, fits = compare_keys(model, backbone, name=name, placeholders=placeholders)
    lacking = [key for key in report.missing if key.startswith(BACKBONE)]
    if lacking or report.unexpected or report.mismatched:
        of_backbone = replace(report, missing=lacking)
        raise ValueError(f"{name}: does not hold this model's backbone: {of_backbone.sentence}")
    _load(model, fits)
    return replace(report, unexpected=heads)


def load_weights(model: nn.Module, path: Path) -> KeyReport:
    """Load all weights of a model, published or converted.

    Args:
        model: A segmentor or classifier.
        path: A `.pth` or safetensors file, or a folder that `convert_published` wrote.

    Raises:
        ValueError: As `load_all`, and where the file cannot be read.
    """
    state, placeholders = read_weights(path)
    return load_all(model, state, name=str(path), placeholders=placeholders)


def load_all(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    name: str,
    placeholders: list[str] | None = None,
) -> KeyReport:
    """Load all weights of a model.

    Args:
        model: A segmentor or classifier.
        state: Keys -> tensors, published keys or ours.
        name: What they came from.
        placeholders: Reported along.

    Raises:
        ValueError: Where any key is missing, unexpected, given in two forms or of another shape,
            or a value is not finite; the model is then as it was.
    """
    report, fits = compare_keys(model, state, name=name, placeholders=placeholders)
    report.require_complete(name)
    _load(model, fits)
    return report


def to_published(model: nn.Module, *, bare: bool = False) -> dict[str, Tensor]:
    """A model's state dict under published keys, without the auxiliary head of our trainings.

    Args:
        model: A segmentor or classifier.
        bare: Whether in the form of ImageNet checkpoints, without `backbone.`.
    """
    return {
        to_published_name(key, bare=bare): value
        for key, value in model.state_dict().items()
        if _AUXILIARY not in key
    }


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Published keys -> tensors of a published file or of a converted folder, and placeholders.

    Raises:
        ValueError: As `read_published` and `read_converted`.
    """
    if not path.is_dir():
        return read_published(path)
    model, recognized = read_converted(path)
    return to_published(model, bare=recognized.is_classifier), []


def is_converted(path: Path) -> bool:
    """Whether a folder is one that `convert_published` wrote."""
    return (path / _RECORD).is_file()


def read_published(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Read the tensors of a published `.pth` file, or of a safetensors file; no code in it runs.

    Args:
        path: The file.

    Returns:
        Keys -> tensors of the state dict inside, and the names of pickled classes that were
        replaced by inert placeholders.

    Raises:
        ValueError: Where the file is missing, is no checkpoint, or holds no state dict.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    placeholders: list[str] = []
    if path.suffix == ".safetensors":
        try:
            return _unwrap(load_tensors(path), path), placeholders
        except UNREADABLE as error:
            raise ValueError(f"{path}: not a safetensors file ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        content = load_inert(path, placeholders)
    except Exception as error:  # A damaged file can raise anything.
        raise ValueError(f"{path}: not a checkpoint that torch can read ({error})") from error
    content = find_state_dict(content)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no state dict, but {type(content).__name__}")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: its state dict holds no tensors")
    return _unwrap(tensors, path), placeholders


def _unwrap(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    unwrapped, parts = unwrap_keys(state)
    if parts:
        _log.warning("%s: taken off its keys, what wrapped the model: %s", path, ", ".join(parts))
    return unwrapped


def require_published(model: nn.Module) -> list[str]:
    """Check that published keys can hold a segmentor, and say what they cannot tell of it.

    Args:
        model: A segmentor.

    Returns:
        Settings, as `name=value`, that whoever reads the keys takes to be the published ones.

    Raises:
        ValueError: Where keys or shapes are of no published architecture.
    """
    config: ModelConfig = model.config  # pyright: ignore[reportAssignmentType]
    if config.decoder == "query" and config.query.pyramid != "depthwise":
        raise ValueError(
            f"model.query.pyramid is {config.query.pyramid}, and the published format has only "
            "depthwise"
        )
    state = to_published(model)
    recognized = recognize(state, num_heads=config.query.num_heads)
    with torch.device("meta"):
        other = build_recognized(recognized)
    load_published(other, state).require_complete("a published checkpoint of this model")
    settings, read = _flatten(asdict(config)), _flatten(asdict(recognized.architecture))
    unused = "fpn." if config.decoder == "query" else "query."
    return [
        f"{key}={value}"
        for key, value in settings.items()
        if value != read.get(key) and not key.startswith(unused)
    ]


def _flatten(tree: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flatten(value, f"{start}{key}.") if isinstance(value, dict) else {start + key: value}
        )
    return flat


def write_published(model: nn.Module, path: Path, *, bare: bool = False) -> None:
    """Write a model as a published-style `.pth` of plain tensors, whole or not at all.

    Args:
        model: A segmentor or classifier.
        path: The file.
        bare: Whether as an ImageNet checkpoint: `{"model": ...}` without `backbone.`, else
            `{"state_dict": ...}`.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        torch.save(
            {"model" if bare else "state_dict": OrderedDict(to_published(model, bare=bare))},
            partial,
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def convert_published(
    path: Path, output: Path, *, num_heads: int = 8, neuron: ClassifierNeuron | None = None
) -> KeyReport:
    """Turn a published checkpoint into a folder of ours: tensors, architecture, report.

    The architecture is read from keys and shapes; what these do not show is assumed, and the
    report says so.

    Args:
        path: The published file.
        output: Folder to write, not there yet.
        num_heads: Attention heads, which no shape shows; 8 in all published models.
        neuron: Of an SDT-V2 classifier, which no key shows; None takes the binary LIF that the
            published ones were trained with.

    Raises:
        ValueError: Where the file is no checkpoint, a value is not finite, the keys are of no known
            architecture or do not map one to one, or the output exists.
    """
    if output.exists():
        raise ValueError(f"{output}: exists already")
    state, placeholders = read_published(path)
    try:
        recognized = recognize(state, num_heads=num_heads, neuron=neuron)
        with torch.device("meta"):
            model = build_recognized(recognized)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model = model.to_empty(device="cpu")
    report = load_published(model, state, name=str(path), placeholders=placeholders)
    report = replace(report, assumed=recognized.assumed)
    if not report.complete:
        raise ValueError(f"{path}: its keys do not fit the architecture that they show\n{report}")
    record = {**recognized.to_json(), "source": path.name, "report": asdict(report)}
    partial = output.with_name(f".{output.name}.partial")
    try:
        partial.mkdir(parents=True)
        safetensors.torch.save_file(model.state_dict(), partial / _TENSORS)
        (partial / _RECORD).write_text(json.dumps(record, indent=1) + "\n")
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


def read_converted(path: Path) -> tuple[nn.Module, Recognized]:
    """The model in a folder that `convert_published` wrote.

    Raises:
        ValueError: Where the folder holds no such model, or its tensors do not fit its record.
    """
    try:
        recognized = from_json(json.loads((path / _RECORD).read_text()))
        tensors = load_tensors(path / _TENSORS)
    except (OSError, *UNREADABLE) as error:
        raise ValueError(f"{path}: holds no converted weights ({error})") from error
    with torch.device("meta"):
        model = build_recognized(recognized)
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: tensors and record do not fit ({error})") from error
    return model, recognized
