"""Packages that exported files need, imported when they are asked for."""

import importlib
from types import ModuleType

from ..config.errors import ConfigError

# Package -> the extra that installs it.
_EXTRAS = {
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "openvino": "openvino",
}


def require_package(name: str) -> ModuleType:
    """Import a package that is installed by an extra.

    Args:
        name: The package's name.

    Raises:
        ConfigError: Where it is not installed; says which line installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} is not installed: pip install 'spikeseg[{_EXTRAS[name]}]' ({error})"
        ) from error
