"""A run's checkpoint to an exported file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config.errors import ConfigError
from ..export.export_network import ExportRequest, check_request, export_network
from ..export.metadata import ExportSource
from ..train.preparation import open_data
from .predict_images import load_model


def export_run(
    checkpoint: Path,
    request: ExportRequest,
    overrides: Sequence[str],
    *,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Export a checkpoint's evaluated weights.

    Args:
        checkpoint: A checkpoint's or a run's folder.
        request: What file is wanted.
        overrides: Items `field=value` over the run's configuration, such as `data.path=DIR`.
        tell: Takes a line before each longer piece of work.

    Returns:
        The metadata that stand in the file.

    Raises:
        ConfigError: Where the request cannot be met, before work starts. Data that is not at hand
            is no error: pictures are generated, and the metadata say so.
    """
    check_request(request)
    loaded = load_model(checkpoint, overrides)
    config = loaded.resolved.config
    try:
        dataset = open_data(config)
    except ConfigError as error:
        if any(item.startswith("data.path=") for item in overrides):
            raise
        if request.weights == "int8":
            raise ConfigError(
                f"weights: int8 is measured on the validation split, which is not at hand ({error})"
            ) from error
        tell(f"no data at hand, pictures are generated ({error})")
        dataset = None
    # Files are written of the weights on the CPU, wherever the network was trained.
    name = "/".join(loaded.path.parts[-3:])
    source = ExportSource(loaded.model.cpu(), config, loaded.space, name)
    return export_network(source, dataset, request, tell=tell)
