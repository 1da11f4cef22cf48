"""One step does to the weights what clipping and rates of the configuration say, exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_training import small, training
from tiny import experiment, pack_shapes
from torch import Tensor

from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.train.faults.preemption import Notice
from spikeseg.platform.train.step import Stepper


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


class Update:
    """What one update of the weights saw and did.

    Attributes:
        gradient: All gradients that the optimizer was given, in parameter order, flat.
        rates: Learning rate of each parameter.
        before: Weights before it.
        after: Weights after it.
    """

    def __init__(self, made: Any, step: Any) -> None:
        optimizer = made.state.optimizer
        named = dict(made.state.model.named_parameters())
        self.gradient = torch.cat([p.grad.reshape(-1) for p in named.values()])
        rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        self.rates = {name: rates[id(p)] for name, p in named.items()}
        self.before = {name: p.detach().clone() for name, p in named.items()}
        self.norm = float(torch.linalg.vector_norm(self.gradient))
        step()
        self.after = {name: p.detach().clone() for name, p in named.items()}


def updates(
    config: ExperimentConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Update], list[float]]:
    """Train to the first evaluation; every update, and every gradient norm that was reported."""
    made, _ = training(config, folder)
    seen: list[Update] = []
    step = made.state.optimizer.step
    monkeypatch.setattr(made.state.optimizer, "step", lambda: seen.append(Update(made, step)))
    norms: list[float] = []
    take = made._stepper.train_step

    def taking(*arguments: Any) -> Any:
        result = take(*arguments)
        norms.append(result.norm)
        return result

    monkeypatch.setattr(made._stepper, "train_step", taking)
    next(iter(made.evaluations()))
    return seen, norms


def with_optimizer(config: ExperimentConfig, **values: Any) -> ExperimentConfig:
    tree = config.model_dump(mode="json")
    tree["optimizer"] |= values
    return ExperimentConfig.model_validate(tree, strict=False)


def test_gradients_are_clipped_to_the_norm_whenever_they_are_longer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(data, max_steps=1, evaluate_every=1, ema_decay=None)
    (free,), (norm,) = updates(
        with_optimizer(config, clip_norm=None), tmp_path / "free", monkeypatch
    )
    assert norm == pytest.approx(free.norm, rel=1e-6) and norm > 0
    for part in (0.999, 0.7, 0.5, 0.01):
        clip = part * norm
        (clipped,), (reported,) = updates(
            with_optimizer(config, clip_norm=clip), tmp_path / str(part), monkeypatch
        )
        assert reported == norm, "what is reported is the norm before clipping"
        assert torch.equal(clipped.gradient, free.gradient * (clip / (norm + 1e-6)))
        assert clipped.norm == pytest.approx(clip, rel=1e-5)
    for part in (1.001, 2.0):
        (left,), _ = updates(
            with_optimizer(config, clip_norm=part * norm), tmp_path / str(part), monkeypatch
        )
        assert torch.equal(left.gradient, free.gradient)


def test_every_parameter_steps_with_its_rules_rate_times_the_schedule(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [
        {"match": "backbone.*.weight", "lr": 0.25, "weight_decay": 0.0},
        {"match": "backbone.*", "lr": 0.0},
        {"match": "*", "weight_decay": 3.0},
    ]
    lr, decay = 2e-3, 0.005
    config = with_optimizer(
        small(data, max_steps=4, evaluate_every=4, ema_decay=None),
        **{"rules": rules, "warmup_steps": 2, "warmup_start": 0.5, "clip_norm": None},
    )
    seen, _ = updates(config, tmp_path / "run", monkeypatch)
    # Warm-up 0.5, 1, then the linear decay: the last step has rate 0.
    factors = [0.5, 1.0, 1.0, 0.0]
    assert len(seen) == 4

    def rule(name: str) -> tuple[float, float]:
        if name.startswith("backbone."):
            return (0.25 * lr, 0.0) if name.endswith(".weight") else (0.0, decay)
        return lr, 3 * decay

    by_hand = {name: value.clone().requires_grad_() for name, value in seen[0].before.items()}
    groups = [
        {"params": [value], "lr": rule(name)[0], "weight_decay": rule(name)[1]}
        for name, value in by_hand.items()
    ]
    adam = torch.optim.AdamW(groups, betas=config.optimizer.betas)
    for factor, update in zip(factors, seen, strict=True):
        assert update.rates == {name: rule(name)[0] * factor for name in by_hand}
        start = 0
        for group, (name, value) in zip(adam.param_groups, by_hand.items(), strict=True):
            group["lr"] = rule(name)[0] * factor
            part: Tensor = update.gradient[start : start + value.numel()]
            value.grad = part.reshape(value.shape).clone()
            start += value.numel()
        adam.step()
        for name, value in by_hand.items():
            torch.testing.assert_close(value.detach(), update.after[name], rtol=1e-6, atol=1e-8)
    moved = {
        name for name in by_hand if not torch.equal(seen[0].before[name], seen[-1].after[name])
    }
    held = {name for name in by_hand if rule(name)[0] == 0}
    assert held and moved == by_hand.keys() - held


@pytest.mark.parametrize(("size", "number"), [(4, 3), (2, 6), (1, 12)])
def test_a_step_has_the_same_images_whatever_the_size_of_a_micro_batch(
    data: Path, tmp_path: Path, size: int, number: int
) -> None:
    made, _ = training(small(data, micro_batch_size=4, micro_batches=3), tmp_path / "run")
    made.state.progress.micro_batch_size = size
    made._prepare()
    assert made._stepper.micro_batches == number and made._stepper.indices == range(number)
    (micro_batches,) = made.rows.steps(0, 1, made._stepper.indices)
    assert [len(batch.ids) for batch in micro_batches] == [size] * number


class Peer(OneWorker):
    """A group whose other worker counts three objects and was told to leave."""

    def sum(self, tensor: Tensor) -> None:
        if tensor.numel() == 2:
            tensor += torch.tensor([3.0, 1.0], dtype=tensor.dtype)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another worker"])
def test_the_loss_is_normalized_by_the_objects_of_all_workers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    made, _ = training(experiment(data, micro_batches=3), tmp_path / "run")
    normalizers: list[float] = []
    terms = Stepper._loss_terms

    def recording(self: Stepper, images: Tensor, target: Tensor, normalizer: Tensor) -> Any:
        normalizers.append(float(normalizer))
        return terms(self, images, target, normalizer)

    monkeypatch.setattr(Stepper, "_loss_terms", recording)
    stepper = Stepper(
        made.config,
        state=made.state,
        criterion=made.criterion,
        group=OneWorker() if alone else Peer(),
        notice=Notice(),
        micro_batch_size=1,
    )
    (micro_batches,) = made.rows.steps(0, 1, stepper.indices)
    result = stepper.train_step(0, micro_batches)
    objects = sum(made.criterion.count(batch.targets) for batch in micro_batches)
    assert objects > 0
    expected = (objects + (0 if alone else 3)) / 3
    assert normalizers == [pytest.approx(expected)] * 3
    assert result.preempted is not alone
