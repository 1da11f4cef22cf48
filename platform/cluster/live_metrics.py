"""Gauges of our own among Ray's metrics, which its nodes export for Prometheus."""

import sys
from collections.abc import Mapping
from typing import Any

GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "spikeseg_images_per_second": ("Training images a second, over all workers.", ("run",)),
    "spikeseg_step_seconds": ("Seconds of one optimizer step.", ("run",)),
    "spikeseg_step": ("Optimizer steps done.", ("run",)),
    "spikeseg_loss": ("Training loss, the sum of its terms.", ("run",)),
    "spikeseg_unsent_bytes": ("Bytes of the journal that MLflow does not have yet.", ("run",)),
    "spikeseg_trials": ("Trials of a sweep in each state.", ("sweep", "state")),
}
"""Name -> description and tags; Prometheus sees each with `ray_` before it."""

_made: dict[str, Any] = {}


def is_in_session() -> bool:
    """Whether this process is connected to Ray, which alone takes gauges."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def set_gauge(name: str, value: float, **tags: str) -> None:
    """Set a gauge of this process; it must be connected to Ray.

    Args:
        name: A key of `GAUGES`.
        value: Its value from now on.
        **tags: One value for each of the gauge's tags.
    """
    from ray.util.metrics import Gauge

    if name not in _made:
        description, keys = GAUGES[name]
        _made[name] = Gauge(name, description=description, tag_keys=keys)
    _made[name].set(value, tags=tags)
