"""A checkpoint on disk: safetensors, `state.json`, and a manifest with the hash of each file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ...datasets.packed.files import flush_to_disk

_FORMAT = 1
# Anything else that storage answers says nothing about the file.
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose hashes were found to hold.

    Attributes:
        path: Its folder.
        state: Content of `state.json`; `step` and `history` are always there.
    """

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return int(self.state["step"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of one file (`model`, `optimizer`, `ema`); empty where it was not written."""
        path = self.path / f"{name}.safetensors"
        return safetensors.torch.load_file(path) if path.is_file() else {}

    def state_dict(self) -> dict[str, Any]:
        """All of it, as `TrainingState.load_state_dict` takes it: tensors by file, and `state`."""
        files = sorted(self.path.glob("*.safetensors"))
        return {"state": self.state, **{path.stem: self.tensors(path.stem) for path in files}}

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
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        files = dict(manifest["files"])
        digest = manifest.pop("digest")
    except (*_GONE, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: no readable manifest.json ({error})") from error
    if manifest.get("format") != _FORMAT:
        raise ValueError(
            f"{folder}: format {manifest.get('format')!r}, this version reads {_FORMAT}"
        )
    if digest != manifest_digest(manifest):
        raise ValueError(f"{folder / 'manifest.json'}: its own digest does not hold")
    if folder.name != f"step-{manifest['step']:08d}":
        raise ValueError(f"{folder}: its manifest is of step {manifest['step']}")
    for name, entry in files.items():
        try:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except _GONE as error:
            raise ValueError(f"{folder / name}: cannot be read ({error.strerror})") from error
        if digest != entry["sha256"]:
            raise ValueError(f"{folder / name}: its SHA-256 differs from the manifest's")
    return Checkpoint(folder, json.loads((folder / "state.json").read_text()))


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
    path.write_bytes(data)
    flush_to_disk(path)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
