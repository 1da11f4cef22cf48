"""The options of `spikeseg evaluate` as one checked request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cluster.task_pool import PoolSize
from ..config.errors import ConfigError
from ..evaluation.class_scores import InferenceSettings
from ..prediction.network_forms import FormChoice
from ..runs.find_run import find_run
from ..runs.predict_images import Machine
from .image_worker import EvaluateRequest, Submission

_LARGEST = 1 << 16


def read_request(
    word: str, overrides: tuple[str, ...], options: Mapping[str, Any]
) -> EvaluateRequest:
    """Check options and make a request of them.

    Args:
        word: As `find_run` takes it.
        overrides: Items `field=value`.
        options: Name of each option -> its value.

    Raises:
        ConfigError: Names the option and the rule.
    """
    window = _read_size("--window", options["window"])
    stride = _read_size("--stride", options["stride"])
    if window is not None and stride is None:
        stride = max(1, window[0] * 2 // 3), max(1, window[1] * 2 // 3)
    inference = InferenceSettings(
        window=window, stride=stride, scales=_read_scales(options["scales"]), flip=options["flip"]
    )
    return EvaluateRequest(
        find_run(word, options["storage"]).weights,
        overrides,
        options["split"],
        inference,
        _read_forms(options),
        Machine(options["device"], options["threads"]),
        PoolSize(options["processes"], options["on_ray"], options["threads"] or 1),
        options["energy"],
        _read_submission(options),
        operations=not options["no_operations"],
    )


def read_numbers(option: str, text: str) -> list[int]:
    """Whole numbers of at least 1 that stand in a list with commas; empty for an empty text.

    Raises:
        ConfigError: Names the option.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isdecimal() and 1 <= int(part) <= _LARGEST for part in parts):
        raise ConfigError(f"{option}: must be whole numbers from 1 with commas, got {text!r}")
    return [int(part) for part in parts]


def _read_forms(options: Mapping[str, Any]) -> tuple[FormChoice, ...]:
    forms = [FormChoice(folded=True)] if options["folded"] else []
    if options["runtime"] != "torch" or options["exported"] is not None:
        forms.append(FormChoice(False, options["runtime"], options["exported"]))
    for form in forms:
        form.require_valid()
    return tuple(forms)


def _read_submission(options: Mapping[str, Any]) -> Submission | None:
    kind = options["submission"]
    if kind is None:
        return None
    output: Path | None = options["output"]
    if output is None:
        raise ConfigError("--submission needs --output, the folder that gets its files")
    return Submission(kind, output / "submission")


def _read_size(option: str, text: str | None) -> tuple[int, int] | None:
    """Height and width of `HxW`, or of one number for both."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) <= _LARGEST for part in parts):
        raise ConfigError(f"{option}: must be HEIGHTxWIDTH in pixels, got {text!r}")
    return int(parts[0]), int(parts[-1])


def _read_scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--scales: must be numbers with commas, got {text!r}") from error
