"""A checkpoint on disk: safetensors, `state.json`, and a manifest with the hash of each file."""

import hashlib
import io
import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import safetensors.torch
from torch import Tensor

from ...datasets.packed.files import flush_to_disk, named_in_errors
from ...model.published.safetensors_file import UNREADABLE, load_tensors

_FORMAT = 1
# Anything else that storage answers says nothing about the file.
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_STATE = "state.json"
_FILE_NAME = re.compile(r"\w+\.safetensors|state\.json", re.ASCII)
_SHA256 = re.compile("[0-9a-f]{64}")
# Far above what any training writes; a file above them is not read.
_MANIFEST_BYTES = 1 << 20
_STATE_BYTES = 1 << 26
_HEADER_BYTES = 1 << 24


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation measured.

    Attributes:
        step: Optimizer steps done.
        metrics: Names as in MLflow (`val/mIoU` in percent, `energy/mJ`, …).
        replayed: Read back from a checkpoint after a resume, not measured now.
    """

    step: int
    metrics: dict[str, float]
    replayed: bool = False


def rank_score(metrics: Mapping[str, Any]) -> float:
    """val/mIoU by which evaluations are compared; one that is no number is below every other."""
    score = float(metrics["val/mIoU"])
    return score if math.isfinite(score) else -math.inf


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose hashes were found to hold.

    Attributes:
        path: Its folder.
        state: Content of `state.json`; `step` and `history` are always there.
        files: Names of the files whose hashes hold.
    """

    path: Path
    state: dict[str, Any]
    files: tuple[str, ...]

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.state["step"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of one file (`model`, `optimizer`, `ema`); empty where it was not written.

        Raises:
            ValueError: Where the file is not what safetensors writes.
        """
        if f"{name}.safetensors" not in self.files:
            return {}
        path = self.path / f"{name}.safetensors"
        with _open_file(path) as file:
            header = int.from_bytes(file.read(8), "little")
        if header > _HEADER_BYTES:
            raise ValueError(
                f"{path}: its header would have {header} bytes, at most {_HEADER_BYTES} are read"
            )
        try:
            return load_tensors(path)
        except UNREADABLE as error:
            raise ValueError(f"{path}: no readable safetensors file ({error})") from error

    def state_dict(self) -> dict[str, Any]:
        """All of it, as `TrainingState.load_state_dict` takes it: tensors by file, and `state`."""
        names = sorted(Path(name).stem for name in self.files if name != _STATE)
        return {"state": self.state, **{name: self.tensors(name) for name in names}}

    def value(self, key: str, kind: type) -> Any:
        """A value of the state.

        Raises:
            ValueError: Where there is none, or one of another type.
        """
        value = self.state.get(key)
        if not isinstance(value, kind):
            raise ValueError(
                f"{self.path / _STATE}: {key} must be {kind.__name__}, got {type(value).__name__}"
            )
        return value

    def evaluated(self) -> dict[str, Tensor]:
        """The weights that were evaluated: the averaged ones where there are any."""
        return self.tensors("ema") or self.tensors("model")


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint and verify the hash of every file.

    Args:
        folder: The checkpoint's folder.

    Raises:
        ValueError: Names the file and what is wrong with it.
        OSError: Where storage does not let it be read.
    """
    file = folder / "manifest.json"
    manifest = _read_json(file, _MANIFEST_BYTES)
    if manifest.get("format") != _FORMAT:
        raise ValueError(
            f"{folder}: format {manifest.get('format')!r}, this version reads {_FORMAT}"
        )
    digest = manifest.pop("digest", None)
    if digest != manifest_digest(manifest):
        raise ValueError(f"{file}: its own digest does not hold")
    step = manifest.get("step")
    if not _is_count(step) or folder.name != f"step-{step:08d}":
        raise ValueError(f"{folder}: its manifest is of step {step!r}")
    files = _check_files(file, manifest.get("files"))
    for name, entry in files.items():
        with _open_file(folder / name, entry["bytes"]) as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != entry["sha256"]:
            raise ValueError(f"{folder / name}: its SHA-256 differs from the manifest's")
    state = _read_json(folder / _STATE, _STATE_BYTES)
    _check_state(folder / _STATE, state, step)
    return Checkpoint(folder, state, tuple(files))


def _check_files(file: Path, files: object) -> dict[str, dict[str, Any]]:
    """Files of a manifest, each with `bytes` and `sha256`."""
    if not isinstance(files, dict) or _STATE not in files:
        raise ValueError(f"{file}: files must name {_STATE} and the files of tensors")
    for name, entry in files.items():
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"{file}: files: {name!r} is no name of a checkpoint's file")
        if not isinstance(entry, dict) or not _is_count(entry.get("bytes")):
            raise ValueError(f"{file}: files: {name}: bytes must be a whole number of at least 0")
        if not isinstance(entry.get("sha256"), str) or not _SHA256.fullmatch(entry["sha256"]):
            raise ValueError(f"{file}: files: {name}: sha256 must be 64 hexadecimal digits")
    return files


def _check_state(file: Path, state: Mapping[str, Any], step: int) -> None:
    if state.get("step") != step:
        raise ValueError(f"{file}: step is {state.get('step')!r}, the manifest's is {step}")
    history = state.get("history")
    if not isinstance(history, list):
        raise ValueError(f"{file}: history must be a list, got {type(history).__name__}")
    for number, past in enumerate(history):
        metrics = past.get("metrics") if isinstance(past, dict) else None
        if not isinstance(metrics, dict) or not _is_count(past.get("step")):
            raise ValueError(f"{file}: history: item {number} must have a step and metrics")
        if not isinstance(metrics.get("val/mIoU"), int | float):
            raise ValueError(f"{file}: history: item {number}: val/mIoU must be a number")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_json(path: Path, most: int) -> dict[str, Any]:
    """Read a JSON object of at most so many bytes."""
    with _open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path}: has more than {most} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must be a JSON object, got {type(value).__name__}")
    return value


def _open_file(path: Path, num_bytes: int | None = None) -> io.BufferedReader:
    """Open a regular file: a device or a pipe would be read without end.

    Args:
        path: The file.
        num_bytes: Bytes that it must have; None for any number.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: is no regular file")
        if num_bytes is not None and status.st_size != num_bytes:
            raise ValueError(f"{path}: has {status.st_size} bytes, the manifest says {num_bytes}")
        return path.open("rb")
    except _GONE as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def write_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Make a checkpoint's folder and write its files, the manifest with their hashes last.

    Args:
        folder: The folder, which must not exist.
        step: Optimizer steps done.
        tensors: File name -> tensors by name.
        state: What JSON can hold; `step` is added.

    Raises:
        OSError: Where storage refuses.
    """
    folder.mkdir()
    files: dict[str, dict[str, Any]] = {}
    for name, content in tensors.items():
        plain = {key: value.detach().cpu().contiguous() for key, value in content.items()}
        data = safetensors.torch.save(plain)
        files[f"{name}.safetensors"] = write_synced(folder / f"{name}.safetensors", data)
    text = json.dumps({**state, "step": step}, indent=1).encode()
    files["state.json"] = write_synced(folder / "state.json", text)
    manifest = {"format": _FORMAT, "step": step, "files": files}
    manifest["digest"] = manifest_digest(manifest)
    write_synced(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    flush_to_disk(folder)


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a checkpoint's manifest, as it stands in the manifest itself."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def write_synced(path: Path, data: bytes) -> dict[str, Any]:
    """Write a file and fsync it; returns its size and SHA-256."""
    with named_in_errors(path):
        path.write_bytes(data)
        flush_to_disk(path)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
