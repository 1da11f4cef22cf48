"""Published checkpoints to ours and back: key names, a both-way report, no code from files."""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

_OURS = "decode_head.embedding."
_PUBLISHED = "decode_head."
_BACKBONE = "backbone."
_CONTAINERS = ("state_dict", "model")
_CLASSIFIER = re.compile(r"^(head|head_kd)\.")


def published_name(ours: str, *, bare: bool = False) -> str:
    """Published key of one of our state-dict keys.

    Our modules carry the published names but for one: the mask embedding's parts stand in a module
    of their own.

    Args:
        ours: Our key.
        bare: Whether in the form of ImageNet checkpoints, without `backbone.`.
    """
    if bare:
        return ours.removeprefix(_BACKBONE)
    return ours.replace(_OURS, _PUBLISHED, 1) if ours.startswith(_OURS) else ours


@dataclass(frozen=True)
class KeyReport:
    """How two state dicts meet.

    Attributes:
        matched: Keys that both have, with equal shapes.
        missing: Keys that the model wants and the checkpoint lacks.
        unexpected: Keys that the checkpoint has and the model does not want.
        mismatched: Keys with unequal shapes, with both shapes.
        placeholders: Classes in the file that were not loaded but made inert.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    placeholders: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every key of both sides met its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        """A line per kind, then a line per key that did not match."""
        lines = [
            f"{len(self.matched)} matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        ]
        lines += [f"missing     {key}" for key in self.missing]
        lines += [f"unexpected  {key}" for key in self.unexpected]
        lines += [
            f"shape       {key}: {a} in the model, {b} in the file" for key, a, b in self.mismatched
        ]
        lines += [f"placeholder {name}" for name in self.placeholders]
        return "\n".join(lines)


def load_published(
    model: nn.Module, state: Mapping[str, Tensor], *, placeholders: list[str] | None = None
) -> KeyReport:
    """Load a published state dict into a model; what does not fit is reported, not loaded.

    Args:
        model: A segmentor, or one of its parts.
        state: Published keys -> tensors. A bare ImageNet backbone's keys are found below
            `backbone.`; its classifier (`head.*`, `head_kd.*`) is left out and reported.
        placeholders: Reported along.
    """
    wanted = {published_name(key): key for key in model.state_dict()}
    bare = not any(key in wanted for key in state) and any(f"backbone.{k}" in wanted for k in state)
    given = {f"backbone.{key}" if bare else key: value for key, value in state.items()}
    shapes = {name: tuple(model.state_dict()[key].shape) for name, key in wanted.items()}
    fits, mismatched = {}, []
    for name, value in given.items():
        if name not in wanted:
            continue
        if tuple(value.shape) == shapes[name]:
            fits[wanted[name]] = value
        else:
            mismatched.append((name, shapes[name], tuple(value.shape)))
    model.load_state_dict(fits, strict=False)
    return KeyReport(
        matched=[name for name in given if wanted.get(name) in fits],
        missing=[name for name in wanted if name not in given],
        unexpected=[name for name in given if name not in wanted],
        mismatched=mismatched,
        placeholders=placeholders or [],
    )


def to_published(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict under published keys."""
    return {published_name(key): value for key, value in model.state_dict().items()}


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
        return safetensors.torch.load_file(path), placeholders
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        content = _load_inert(path, placeholders)
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a checkpoint that torch can read ({error})") from error
    for name in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no state dict, but {type(content).__name__}")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: its state dict holds no tensors")
    return tensors, placeholders


def write_published(model: nn.Module, path: Path) -> None:
    """Write a model as a published-style `.pth`: `{"state_dict": ...}` of plain tensors."""
    torch.save({"state_dict": OrderedDict(to_published(model))}, path)


class _Inert:
    """Stands for an object of a class that is not loaded; it does nothing, whatever is asked."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "_Inert":
        return self

    def append(self, _: Any) -> None:
        """Take what a pickled list would, and drop it."""

    def extend(self, _: Any) -> None:
        """Take what a pickled list would, and drop it."""

    def __setitem__(self, _: Any, __: Any) -> None:
        pass


_SAFE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class _StorageKind:
    dtype: torch.dtype


def _load_inert(path: Path, placeholders: list[str]) -> Any:
    """Unpickle with every unknown class replaced by a placeholder.

    Raises:
        ValueError: Where the file is not torch's zip form, or its pickle is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: pickles classes in torch's old form, which is not read; save it again with "
            "a torch of version 1.6 or later"
        )
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickled = next((name for name in names if name.endswith("data.pkl")), None)
        if pickled is None:
            raise ValueError(f"{path}: no data.pkl inside")
        root = pickled.removesuffix("data.pkl")

        class Restricted(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> Any:
                if (module, name) in _SAFE:
                    return _SAFE[module, name]
                if module == "torch" and name in _STORAGES:
                    return _StorageKind(_STORAGES[name])
                placeholders.append(f"{module}.{name}")
                return type(name, (_Inert,), {})

            def persistent_load(self, pid: Any) -> Any:
                _, kind, key, _, _ = pid
                data = bytearray(archive.read(f"{root}data/{key}"))
                storage = torch.UntypedStorage.from_buffer(
                    data, byte_order="little", dtype=torch.uint8
                )
                return torch.storage.TypedStorage(
                    wrap_storage=storage, dtype=kind.dtype, _internal=True
                )

        try:
            content = Restricted(io.BytesIO(archive.read(pickled))).load()
        except (pickle.UnpicklingError, TypeError, AttributeError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: its pickle cannot be read safely ({error})") from error
    return content
