"""A trained network to one file that runs elsewhere, compared with it before it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ...datasets.packed.files import place_file, temporary_beside
from ...datasets.packed.reader import PackedDataset
from ...model.neuron.kinds import find_neurons as find_model_neurons
from ..config.errors import ConfigError
from .integer_weights import quantize_weights
from .metadata import KEY, PROGRAM_FILE, ExportSource, describe_network, encode_metadata
from .onnx_graph import build_onnx, find_neurons
from .open_exported import describe_precision, start_runtime
from .packages import require_package
from .parity import Candidate, ParityImages, compare, generate_images, read_split_images
from .traced_program import LEAST_FREE_SIDE, ExportedForm, has_free_size, save_program, trace

_PARITY_IMAGES = 8
_COARSEST_STRIDE = 16


class ExportRequest(NamedTuple):
    """What file is wanted.

    Attributes:
        output: The file; it must not exist.
        format: `onnx`, or `pt2` for `torch.export.load`.
        weights: `float32`, or `int8` where spike counts are read.
        runtime: Who computes the comparison, and is to be fast with int8 weights.
        threads: Threads of the runtime that compares.
        images: Images to compare on; if not given 8 for float32, all for int8.
        split: Whose images.
    """

    output: Path
    format: Literal["onnx", "pt2"] = "onnx"
    weights: Literal["float32", "int8"] = "float32"
    runtime: Literal["onnx", "openvino"] = "onnx"
    threads: int = 1
    images: int | None = None
    split: str = "val"


def check_request(request: ExportRequest) -> None:
    """Refuse a request that cannot be met, before work starts.

    Raises:
        ConfigError: Where the file exists or has another ending, weights do not fit the format,
            or a package is missing.
    """
    output = request.output
    if output.suffix != f".{request.format}":
        raise ConfigError(f"{output}: a file of format {request.format} ends in .{request.format}")
    if output.exists():
        raise ConfigError(f"{output}: exists already")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder")
    if request.format == "pt2":
        if request.weights != "float32":
            raise ConfigError("weights: int8 is written as onnx, a pt2 has float32")
        return
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require_package(name)
    if request.runtime == "openvino":
        require_package("openvino")


def export_network(
    source: ExportSource,
    dataset: PackedDataset | None,
    request: ExportRequest,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the folded form of a trained network, compared with it on images.

    Args:
        source: The trained network.
        dataset: Its data, of whose validation split images are taken; None: pictures are
            generated.
        request: What file is wanted.
        tell: Takes a line before each longer piece of work.

    Returns:
        The metadata that stand in the file.

    Raises:
        ConfigError: As `check_request`; where neurons are no integer neurons or have too many
            levels for int8.
    """
    check_request(request)
    free = has_free_size(source.config.model)
    size = _find_size(source, dataset)
    form = ExportedForm(source.model)
    tell(f"tracing the folded form at {size[0]} x {size[1]}")
    program = trace(form, size, free_size=free)
    metadata = describe_network(source) | {
        "format": request.format,
        "weights": request.weights,
        "outputs": list(form.names),
        "computed_steps": form.computed_steps,
        "size": None if free else list(size),
        "least_side": LEAST_FREE_SIDE if free else _COARSEST_STRIDE,
    }
    if request.format == "pt2":
        images = _choose_images(source, dataset, request, metadata["size"], size)
        tell(f"comparing on {images.origin}")
        metadata["parity"] = compare(source, _run_program(form, program), images)
        metadata["parity"]["computed_by"] = f"torch {torch.__version__}, float32"
        temporary = temporary_beside(request.output).with_suffix(".pt2")
        _place(
            temporary,
            request.output,
            lambda path: save_program(program, path, {PROGRAM_FILE: encode_metadata(metadata)}),
        )
        return metadata
    tell("translating it to ONNX")
    model = build_onnx(program, form)
    known = {name for name, _ in find_model_neurons(source.model)}
    neurons = {path: name for path, name in find_neurons(model.graph).items() if path in known}
    metadata["integer_convolutions"] = 0
    if request.weights == "int8":
        metadata["integer_convolutions"] = quantize_weights(model, request.runtime)
        metadata["fast_with"] = request.runtime
    images = _choose_images(source, dataset, request, metadata["size"], size)
    tell(f"comparing on {images.origin}")
    content, outputs = _with_spikes(model, neurons)
    run, name = start_runtime(content, request.runtime, threads=request.threads)
    metadata["parity"] = compare(source, Candidate(run, outputs), images)
    metadata["parity"]["computed_by"] = f"{name}, {describe_precision(request.weights)}"
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, encode_metadata(metadata)
    temporary = temporary_beside(request.output)
    _place(temporary, request.output, lambda path: path.write_bytes(model.SerializeToString()))
    return metadata


def _place(temporary: Path, output: Path, write: Callable[[Path], Any]) -> None:
    try:
        write(temporary)
        place_file(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


def _find_size(source: ExportSource, dataset: PackedDataset | None) -> tuple[int, int]:
    """Height and width to trace with: of a validation image as the network sees it, or the crop."""
    transform = source.config.data.transform
    if dataset is None:
        return transform.crop
    for images, _ in read_split_images(dataset, transform, 1, None).batches:
        return images.shape[2], images.shape[3]
    raise AssertionError("a validation split has rows")


def _choose_images(
    source: ExportSource,
    dataset: PackedDataset | None,
    request: ExportRequest,
    fixed: list[int] | None,
    size: tuple[int, int],
) -> ParityImages:
    transform = source.config.data.transform
    if dataset is None:
        return generate_images(transform, size)
    count = request.images
    if count is None and request.weights == "float32":
        count = _PARITY_IMAGES
    return read_split_images(dataset, transform, count, fixed, split=request.split)


def _run_program(form: ExportedForm, program: torch.export.ExportedProgram) -> Candidate:
    """The program itself for scores; for spikes the form that it was traced of."""
    module = program.module()
    counts: dict[str, np.ndarray] = {}
    neurons = {}
    for path, part in form.segmentor.named_modules():
        rule = getattr(part, "rule", None)
        if rule is None:
            continue
        name = path.removesuffix(".neuron")
        neurons[name] = path
        part.register_forward_hook(
            lambda _, inputs, output, path=path: counts.update({path: output.numpy()})
        )

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        batch = torch.from_numpy(images)
        form(batch)
        return {**counts, "scores": module(batch)[0].numpy()}

    return Candidate(run, neurons)


def _with_spikes(model: Any, neurons: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """A copy of a model with spike counts as further outputs, and their names by neuron."""
    onnx = require_package("onnx")
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    tensors = {name for node in copy.graph.node for name in node.output}
    outputs = {}
    for path, name in neurons.items():
        whole = name not in tensors
        tensor = f"{name}_counts" if whole else name
        if tensor not in tensors:
            continue
        outputs[path] = tensor
        kind = onnx.TensorProto.UINT8 if whole else onnx.TensorProto.FLOAT
        copy.graph.output.append(onnx.helper.make_tensor_value_info(tensor, kind, None))
    return copy.SerializeToString(), outputs
