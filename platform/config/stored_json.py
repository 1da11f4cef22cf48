"""Read values that an earlier process wrote: checked by type, refused with file and key."""

import functools
import json
import math
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from .errors import ConfigError
from .run_names import shown

Value = TypeVar("Value")


def read_stored(path: Path, kind: type[Value]) -> Value:
    """Read a JSON file of a run or a sweep.

    Args:
        path: The file.
        kind: What it must hold; keys that it does not name are left out.

    Raises:
        ConfigError: Where it cannot be read, is no JSON or holds something else; names the key.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return _adapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_fault(error)}") from None


def to_json(value: Any) -> str:
    """A value as text of JSON; numbers that are not finite, which JSON has not, become null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_stored(value: Any, kind: type[Value], where: str) -> Value:
    """Return a stored value that is what it must be.

    Args:
        value: As JSON gives it.
        kind: What it must be.
        where: What errors begin with: file or study, and key.

    Raises:
        ConfigError: Where it is something else; names the key.
    """
    try:
        # As JSON: of Python's values pydantic takes only instances for a model when it is strict.
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_fault(error)}") from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if fault["type"] == "json_invalid":
        return f"is damaged ({fault['msg']})"
    key = ".".join(map(str, fault["loc"]))
    value = "" if fault["type"] == "missing" else f"got {shown(str(fault['input']))}: "
    return f"{key}: {value}{fault['msg']}" if key else f"{value}{fault['msg']}"
