"""Unpickle torch's zip files with every unknown class replaced by an inert placeholder."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


class _Inert(dict[Any, Any]):
    """Stands for an object of a class that is not loaded; it does nothing, whatever is asked.

    It keeps the items that it is given, so that a state dict in a mapping of another class is read.
    """

    # It may be a key, as an object of any class.
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]
    __eq__ = object.__eq__

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


class _Rebuild:
    """Calls one of torch's functions; a file could set attributes of the function itself."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        # What stands for values of an unknown type becomes no tensor.
        return args[0] if args and isinstance(args[0], _Inert) else self._function(*args)

    def __setstate__(self, _: Any) -> None:
        raise pickle.UnpicklingError("it would change what rebuilds its tensors")


_PICKLE = b"\x80"  # First byte of every pickle since protocol 2.
_SAFE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(torch._utils._rebuild_tensor_v2),  # pyright: ignore[reportAttributeAccessIssue]
    ("torch._utils", "_rebuild_parameter"): _Rebuild(torch._utils._rebuild_parameter),  # pyright: ignore[reportAttributeAccessIssue]
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
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


@dataclass(frozen=True)
class _StorageKind:
    dtype: torch.dtype


def load_inert(path: Path, placeholders: list[str]) -> Any:
    """Unpickle with every unknown class replaced by a placeholder; no code of the file runs.

    Args:
        path: A file that `torch.save` wrote.
        placeholders: Gets the dotted names of what was replaced, each once.

    Returns:
        What was saved; tensors are real, containers plain, everything else does nothing, tensors
        of types that this reader does not know included.

    Raises:
        ValueError: Where the file is not torch's zip form, or its pickle is damaged.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(1) != _PICKLE:
                raise ValueError(f"{path}: not a checkpoint: neither torch's zip form nor a pickle")
        raise ValueError(
            f"{path}: pickles classes in torch's old form, which is not read; save it again with "
            "a torch of version 1.6 or later"
        )
    try:
        return _unpickle(path, placeholders)
    except ValueError:
        raise
    except Exception as error:  # A damaged or hostile file can raise anything.
        raise ValueError(f"{path}: its pickle cannot be read safely ({error!r})") from error


def _unpickle(path: Path, placeholders: list[str]) -> Any:
    storages: dict[str, torch.UntypedStorage] = {}
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
                if f"{module}.{name}" not in placeholders:
                    placeholders.append(f"{module}.{name}")
                return type(name, (_Inert,), {})

            def persistent_load(self, pid: Any) -> Any:
                _, kind, key, _, _ = pid
                if not isinstance(kind, _StorageKind):
                    return _Inert()
                if key not in storages:
                    data = bytearray(archive.read(f"{root}data/{key}"))
                    storages[key] = torch.UntypedStorage.from_buffer(
                        data, byte_order="little", dtype=torch.uint8
                    )
                return torch.storage.TypedStorage(
                    wrap_storage=storages[key], dtype=kind.dtype, _internal=True
                )

        try:
            return Restricted(io.BytesIO(archive.read(pickled))).load()
        except ValueError as error:
            raise ValueError(f"{path}: its pickle cannot be read safely ({error})") from error
