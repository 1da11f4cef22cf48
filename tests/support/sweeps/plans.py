"""A small sweep as a file, with changes, and what its refusal says."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.search.sweep_file.plan import SweepPlan, load_sweep

BASE: dict[str, Any] = {
    "name": "mine",
    "base": "shapes_tiny",
    "overrides": ["trainer.max_steps=300", "trainer.evaluate_every=100"],
    "trials": 4,
    "objectives": [{"metric": "val/mIoU", "direction": "maximize"}],
    "sampler": {"name": "random", "seed": 1},
    "space": {"model.neuron.levels": {"choices": [1, 2]}},
}


def load(folder: Path, *overrides: str, **changes: Any) -> SweepPlan:
    """The plan of `BASE` with changes, written to `mine.yaml`."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(BASE | changes, sort_keys=False))
    return load_sweep(str(path), overrides)


def refusal(folder: Path, *overrides: str, **changes: Any) -> str:
    """Why that plan is refused."""
    with pytest.raises(ConfigError) as caught:
        load(folder, *overrides, **changes)
    return str(caught.value)
