"""Rates and decays as functions of the step: what is evaluated has forgotten its start."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import experiment, pack_shapes

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.platform.config.recipes import RECIPES, load_experiment, recipe_names
from spikeseg.platform.config.schema import TrainerConfig
from spikeseg.platform.search.sweep_file.plan import load_sweep
from spikeseg.platform.train.schedule import (
    LARGEST_START_SHARE,
    average_decay,
    describe_slow_average,
    start_share,
)
from spikeseg.platform.train.state import TrainingState

SWEEPS = sorted((RECIPES.parent / "sweeps").glob("*.yaml"))


def trainer(**values: Any) -> TrainerConfig:
    smallest = {"max_steps": 400, "micro_batch_size": 1, "evaluate_every": 100}
    return TrainerConfig.model_validate({**smallest, **values})


@pytest.mark.parametrize(
    ("averaged", "start", "expected"),
    [(1, "ramp", 2 / 11), (80, "ramp", 0.9), (900, "ramp", 0.9), (1, "constant", 0.9)],
)
def test_the_decay_rises_to_the_configured_one(averaged: int, start: Any, expected: float) -> None:
    assert average_decay(averaged, 0.9, start) == pytest.approx(expected)


@given(st.floats(0.01, 0.999999), st.integers(5, 3000))
def test_no_ramped_average_gives_its_start_more_than_a_hundredth(decay: float, steps: int) -> None:
    ramped = trainer(ema_decay=decay, ema_start="ramp")
    assert start_share(ramped, steps) <= LARGEST_START_SHARE == 0.01


def test_a_slow_average_names_the_field_that_mends_it() -> None:
    slow = trainer(ema_decay=0.99, ema_start="constant", evaluate_every=75)
    assert start_share(slow, 75) == pytest.approx(0.99**74)
    line = describe_slow_average(slow)
    assert line is not None and "step 75, 48% of the average" in line
    assert "trainer.ema_start=ramp" in line
    for quiet in ({"ema_start": "ramp"}, {"ema_decay": None}, {"ema_decay": 0.9}):
        assert describe_slow_average(slow.model_copy(update=quiet)) is None
    # One step: whatever the rule, these are the weights that were trained.
    assert describe_slow_average(slow.model_copy(update={"evaluate_every": 1})) is None


@pytest.mark.parametrize("start", ["ramp", "constant"])
def test_the_averaged_tensors_hold_the_share_that_is_told(tmp_path: Path, start: str) -> None:
    dataset = PackedDataset.open(pack_shapes(tmp_path / "data"))
    config = experiment(tmp_path / "data", decoder="fpn", ema_decay=0.9, ema_start=start)
    state = TrainingState(config, dataset, workers=1, device=torch.device("cpu"))
    assert state.average is not None
    (weight, *_), (averaged, *_) = state.model.parameters(), state.average.module.parameters()
    # Weights that are 1 after the first step and 0 after every later one.
    for step in range(1, 11):
        with torch.no_grad():
            weight.fill_(float(step == 1))
        state.average.update_parameters(state.model)
        share = start_share(config.trainer, step)
        torch.testing.assert_close(averaged, torch.full_like(averaged, share), rtol=1e-4, atol=0)
        if start == "constant":
            assert share == pytest.approx(0.9 ** (step - 1))


@pytest.mark.parametrize("name", recipe_names())
def test_no_shipped_recipe_scores_what_it_started_from(name: str) -> None:
    assert describe_slow_average(load_experiment(name).config.trainer) is None


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_no_shipped_sweep_judges_what_its_trials_started_from(path: Path) -> None:
    plan = load_sweep(str(path))
    assert describe_slow_average(plan.base.config.trainer) is None
