"""Rates over time and per parameter are the published ones."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeseg.platform.config.schema import OptimizerConfig, ParameterRule
from spikeseg.platform.train.optimizer import (
    build_optimizer,
    collect_optimizer_tensors,
    describe_parameters,
    load_optimizer_tensors,
)
from spikeseg.platform.train.schedule import learning_rate_factor


def config(**values: object) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"lr": 1e-3, "weight_decay": 0.005, **values})


def test_learning_rate_golden_schedule(shared_folder: Path) -> None:
    schedules = json.loads((shared_folder / "reference/golden/lr_schedule.json").read_text())
    for schedule in schedules.values():
        settings = config(warmup_steps=schedule["warmup"], decay_steps=schedule["end"])
        for step, rates in schedule["lr_at_iteration"].items():
            factor = learning_rate_factor(int(step), settings, max_steps=10**9)
            for base, rate in zip(schedule["base_lr"], rates, strict=True):
                assert factor * base == pytest.approx(rate, rel=1e-6, abs=1e-15)


def model() -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": nn.Linear(2, 3), "head": nn.Linear(3, 2)})


def test_the_first_matching_rule_decides() -> None:
    rules = [
        ParameterRule(match="backbone.*", lr=0.1),
        ParameterRule(match="*.bias", weight_decay=0.0),
    ]
    groups = build_optimizer(model(), config(rules=rules)).param_groups
    found = {(group["lr"], group["weight_decay"]): len(group["params"]) for group in groups}
    assert found == {(1e-4, 0.005): 2, (1e-3, 0.005): 1, (1e-3, 0.0): 1}


def test_vectors_may_go_without_decay_whatever_their_rule() -> None:
    rules = [ParameterRule(match="backbone.*", weight_decay=2.0)]
    settings = config(rules=rules, decay_vectors=False)
    groups = build_optimizer(model(), settings).param_groups
    found = {group["weight_decay"]: [p.ndim for p in group["params"]] for group in groups}
    assert found == {0.01: [2], 0.0: [1, 1], 0.005: [2]}
    told = {
        line.split()[0] + line.split()[4] for line in describe_parameters(model(), settings)[1:]
    }
    assert told == {"backbone.*1.00e-02", "backbone.*0.00e+00", "*5.00e-03", "*0.00e+00"}


def test_the_table_counts_tensors_and_values_and_tells_rates() -> None:
    network = model()
    network["backbone"].bias.requires_grad_(False)
    rules = [ParameterRule(match="backbone.*", lr=0.1)]
    rows = [line.split() for line in describe_parameters(network, config(rules=rules))[1:]]
    assert rows == [
        ["backbone.*", "1", "6", "1.00e-04", "5.00e-03", "backbone.weight"],
        ["*", "2", "8", "1.00e-03", "5.00e-03", "head.weight"],
    ]


def test_a_rule_that_matches_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"no parameter's name matches \['backbne"):
        build_optimizer(model(), config(rules=[ParameterRule(match="backbne.*")]))


def test_optimizer_state_survives_the_checkpoint_form() -> None:
    torch.manual_seed(0)
    first, second = model(), model()
    second.load_state_dict(first.state_dict())
    one, two = build_optimizer(first, config()), build_optimizer(second, config())

    def step(net: nn.ModuleDict, optimizer: torch.optim.Optimizer, value: float) -> None:
        net["head"](net["backbone"](torch.full((1, 2), value))).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(first, one, 1.0)
    second.load_state_dict(first.state_dict())
    load_optimizer_tensors(two, second, collect_optimizer_tensors(one, first))
    step(first, one, 2.0)
    step(second, two, 2.0)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
