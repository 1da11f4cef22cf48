"""Rates and decays as functions of the step: what is evaluated has forgotten its start."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny import experiment, pack_shapes

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.transforms import TransformConfig
from spikeseg.platform.config.phases import Phase, TransformPhase
from spikeseg.platform.config.recipes import RECIPES, load_experiment, recipe_names
from spikeseg.platform.config.schema import OptimizerConfig, TrainerConfig
from spikeseg.platform.search.sweep_file.plan import load_sweep
from spikeseg.platform.train.schedule import (
    LARGEST_START_SHARE,
    Schedule,
    average_decay,
    describe_slow_average,
    learning_rate_factor,
    start_share,
)
from spikeseg.platform.train.state import TrainingState

SWEEPS = sorted((RECIPES.parent / "sweeps").glob("*.yaml"))


def schedule(**values: Any) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"lr": 1.0, "weight_decay": 0.0, **values})


PHASES = [
    Phase(0, TransformConfig(crop=(16, 16)), 0.25),
    Phase(60, TransformConfig(crop=(32, 32)), 1),
]


def test_a_decay_over_cost_leaves_more_to_the_dear_steps() -> None:
    over_cost = schedule(decay_over="cost")
    # 60 cheap steps and 41 dear ones, the last of which has rate 0: 15 of 55 is spent.
    factors = [learning_rate_factor(step, over_cost, 101, PHASES) for step in range(101)]
    assert factors[60] == pytest.approx(1 - 15 / 55)
    assert factors[30] == pytest.approx(1 - 7.5 / 55)
    assert factors[80] == pytest.approx(1 - 35 / 55)
    assert (factors[0], factors[100]) == (1, 0)
    assert learning_rate_factor(60, schedule(), 101, PHASES) == pytest.approx(0.4)


def test_a_decay_over_the_cost_of_equal_steps_is_one_over_steps() -> None:
    equal = [phase._replace(cost=1.0) for phase in PHASES]
    for changes in (
        {},
        {"power": 0.9},
        {"warmup_steps": 7},
        {"warmup_steps": 70},
        {"decay_steps": 90},
    ):
        one, other = schedule(**changes), schedule(**changes, decay_over="cost")
        for step in range(101):
            expected = learning_rate_factor(step, one, 101)
            assert learning_rate_factor(step, other, 101, equal) == pytest.approx(expected)


def test_a_cosine_is_slow_at_both_ends() -> None:
    cosine = schedule(decay="cosine", warmup_steps=11)
    factors = {step: learning_rate_factor(step, cosine, 111) for step in (10, 11, 61, 36, 110)}
    assert factors[10] == factors[11] == 1
    assert factors[61] == pytest.approx(0.5 * (1 + math.cos(math.pi * 50 / 99)))
    assert factors[36] > 1 - 25 / 99
    assert factors[110] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("phased", [False, True])
def test_every_group_gets_its_share_of_the_rate_and_phases_are_told(phased: bool) -> None:
    settings = experiment(Path("unread"), max_steps=11)
    phases = [TransformPhase(until=4, transform={"crop": [16, 24]})] if phased else []
    data = settings.data.model_copy(update={"phases": phases})
    rates = schedule(lr=0.2, warmup_steps=0)
    told: list[str] = []
    steps = Schedule(settings.model_copy(update={"data": data, "optimizer": rates}), told.append)
    groups: Any = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2, "base_lr": 0.2},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.02, "base_lr": 0.02},
    ]
    optimizer = torch.optim.SGD(groups)
    for step in range(11):
        rate = steps.begin(step, optimizer)
        assert rate == pytest.approx(0.2 * (1 - step / 10))
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate / 10])
    height, width = settings.data.transform.crop
    whole = f"step 4: phase 2 of 2 begins, crops of {height} x {width}"
    first = "step 0: phase 1 of 2 begins, crops of 16 x 24"
    assert told == ([first, whole] if phased else [])


def test_a_warm_up_that_lasts_the_whole_training_leaves_nothing_to_decay() -> None:
    over_cost = schedule(decay_over="cost", warmup_steps=101)
    assert learning_rate_factor(100, over_cost, 101, PHASES) == 1


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


# `own` cannot be read without data: the next test looks at it.
@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "own"])
def test_no_shipped_recipe_scores_what_it_started_from(name: str) -> None:
    assert describe_slow_average(load_experiment(name).config.trainer) is None


def test_the_recipe_of_own_images_ramps_its_average() -> None:
    trainer = yaml.safe_load((RECIPES / "own.yaml").read_text())["trainer"]
    assert (trainer["ema_decay"], trainer["ema_start"]) == (0.99, "ramp")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_no_shipped_sweep_judges_what_its_trials_started_from(path: Path) -> None:
    plan = load_sweep(str(path))
    assert describe_slow_average(plan.base.config.trainer) is None
