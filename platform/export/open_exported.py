"""Exported files, opened with the runtime that is named; who opens one sees its precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..config.errors import ConfigError
from .metadata import KEY, PROGRAM_FILE, decode_metadata
from .packages import require_package

Runtime = Literal["torch", "onnx", "openvino"]
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported file, ready to predict.

    Attributes:
        path: The file.
        metadata: What it says of itself; keys in docs/export.md.
        precision: Runtime, its version and the precision that it computes in, for people.
    """

    path: Path
    metadata: dict[str, Any]
    precision: str
    _run: Run

    def predict_logits(self, images: np.ndarray) -> np.ndarray:
        """Class scores of a batch of images.

        Args:
            images: (B, C, H, W), C = 3 is RGB: uint8 of 0..255, normalized here, or float32 that
                is normalized already. Resizing is the caller's.

        Returns:
            (B, K, H, W) float32; the most likely class has the highest score.

        Raises:
            ValueError: Where shape or type do not fit, or the file takes another size.
        """
        channels = len(self.metadata["preprocessing"]["mean"])
        shaped = images.ndim == 4 and images.shape[1] == channels
        if not shaped or images.dtype not in (np.uint8, np.float32):
            raise ValueError(
                f"images must be (B, {channels}, H, W) of uint8 or float32, got "
                f"{images.shape} of {images.dtype}"
            )
        size, least = self.metadata["size"], self.metadata["least_side"]
        if size is not None and list(images.shape[2:]) != size:
            raise ValueError(
                f"{self.path}: it takes images of {size[0]} x {size[1]}, got "
                f"{images.shape[2]} x {images.shape[3]}"
            )
        if min(images.shape[2:]) < least:
            raise ValueError(
                f"{self.path}: sides must be at least {least} pixels, got "
                f"{images.shape[2]} x {images.shape[3]}"
            )
        if images.dtype == np.uint8:
            images = normalize_images(images, self.metadata)
        return self._run(np.ascontiguousarray(images))["scores"]


def normalize_images(images: np.ndarray, metadata: dict[str, Any]) -> np.ndarray:
    """Normalize (B, C, H, W) of 0..255 to float32, as a file's metadata say."""
    mean, std = (
        np.array(metadata["preprocessing"][name], np.float32)[:, None, None]
        for name in ("mean", "std")
    )
    return (images.astype(np.float32) - mean) / std


def open_exported(
    path: Path, runtime: Runtime = "onnx", *, threads: int | None = None
) -> ExportedNetwork:
    """Open a file that `spikeseg export` wrote.

    Args:
        path: An `.onnx` file, or a `.pt2` file for runtime `torch`.
        runtime: What computes it, always in float32 where weights are not int8.
        threads: Threads of the runtime; all cores if not given. `torch` keeps those of the
            process.

    Raises:
        ConfigError: Where the file is missing, is no such file or does not fit the runtime, or
            the runtime is not installed.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    wanted = ".pt2" if runtime == "torch" else ".onnx"
    if path.suffix != wanted:
        raise ConfigError(f"{path}: runtime {runtime} opens {wanted} files")
    try:
        if runtime == "torch":
            run, text, name = _open_torch(path)
        else:
            content = path.read_bytes()
            text = read_onnx_metadata(content)
            run, name = start_runtime(content, runtime, threads=threads)
    except ConfigError:
        raise
    except Exception as error:
        # Each runtime has exceptions of its own for a file that it cannot read.
        raise ConfigError(f"{path}: {runtime} cannot open it: {error}") from error
    metadata = decode_metadata(text, path)
    if metadata["outputs"] != ["scores"]:
        raise ConfigError(f"{path}: it has outputs {metadata['outputs']}, scores are needed")
    precision = f"{name}, {describe_precision(metadata['weights'])}"
    return ExportedNetwork(path, metadata, precision, run)


def describe_precision(weights: str) -> str:
    """Precision that a file computes in, in words."""
    if weights == "int8":
        return "int8 weights where spike counts are read, float32 else"
    return "float32"


def start_runtime(content: bytes, runtime: str, *, threads: int | None = None) -> tuple[Run, str]:
    """Load an ONNX model into a runtime, in float32.

    Args:
        content: The model's bytes.
        runtime: `onnx` or `openvino`.
        threads: Threads; all cores if not given.

    Returns:
        A function of a batch, (B, C, H, W) float32, that gives every output by name; and the
        runtime's name and version.

    Raises:
        ConfigError: Where the runtime is not installed.
        RuntimeError: Where OpenVINO would compute in another precision than float32.
    """
    start = _start_openvino if runtime == "openvino" else _start_onnx
    return start(content, threads)


def _start_onnx(content: bytes, threads: int | None) -> tuple[Run, str]:
    onnxruntime = require_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return run, f"ONNX Runtime {onnxruntime.__version__}"


def _start_openvino(content: bytes, threads: int | None) -> tuple[Run, str]:
    openvino = require_package("openvino")
    core = openvino.Core()
    # Without this it computes in bf16 on processors that can, and says nothing.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT")
    if "f32" not in str(precision) and "float32" not in str(precision):
        raise RuntimeError(f"OpenVINO computes in {precision} where float32 was asked for")
    # Neurons that fire alike become one, whose output has all their names.
    names = [output.get_names() for output in compiled.outputs]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled({"images": images})
        return {name: results[index] for index, alike in enumerate(names) for name in alike}

    return run, f"OpenVINO {openvino.__version__.partition('-')[0]}"


def read_onnx_metadata(content: bytes) -> str | None:
    """The text of our entry in the metadata of an ONNX file; None where it has none."""
    onnx = require_package("onnx")
    model = onnx.load_model_from_string(content)
    return next((entry.value for entry in model.metadata_props if entry.key == KEY), None)


def _open_torch(path: Path) -> tuple[Run, str | bytes | None, str]:
    extra: dict[str, Any] = {PROGRAM_FILE: ""}
    program = torch.export.load(path, extra_files=extra)
    module = program.module()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {"scores": module(torch.from_numpy(images))[0].numpy()}

    return run, extra[PROGRAM_FILE], f"torch {torch.__version__}"
