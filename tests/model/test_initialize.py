"""New trainings start alive: every neuron layer fires, every gradient is of a usable size."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from models import shapes_batch, small_config
from torch import Tensor, nn

from spikeseg.model.accounting.firing import FiringMonitor
from spikeseg.model.accounting.health import StepHealth, judge_firing, step_health
from spikeseg.model.config import LossConfig, ModelConfig
from spikeseg.model.initialize import calibrate_norms
from spikeseg.model.loss.criterion import build_criterion
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.segmentor import build_segmentor
from spikeseg.platform.config.recipes import load_experiment
from spikeseg.platform.figures.health import draw_health
from spikeseg.platform.train.preparation import build_seeded_model, initialize_weights


def config_of(family: Any, decoder: Any, compat: Any) -> ModelConfig:
    config = small_config()
    return dataclasses.replace(
        config,
        backbone=dataclasses.replace(config.backbone, family=family),
        decoder=decoder,
        compat=compat,
    )


def first_step(config: ModelConfig) -> StepHealth:
    torch.manual_seed(1)
    images, labels = shapes_batch(8)
    model = build_segmentor(config, images)
    criterion = build_criterion(LossConfig(mask_resolution="prediction"), config)
    model.train()

    def loss() -> Tensor:
        terms = criterion(model(images), labels, criterion.count(labels))
        return torch.stack(list(terms.values())).sum()

    return step_health(model, loss)


@pytest.mark.parametrize("decoder", ["query", "fpn"])
@pytest.mark.parametrize("family", ["meta_spikeformer", "e_spikeformer"])
def test_a_new_training_starts_alive_in_every_layer(family: str, decoder: str) -> None:
    health = first_step(config_of(family, decoder, "corrected"))
    assert health.neurons.alive, str(health.neurons)
    assert min(row.rate for row in health.firing) > 0.1
    assert max(row.saturated for row in health.firing) < 0.5
    assert all(row.norm > 0 for row in health.gradients)
    assert health.gradient_norm < 1e3


def test_a_network_built_from_python_is_the_one_that_a_training_starts_with() -> None:
    experiment = load_experiment("shapes_tiny", []).config
    images, _ = shapes_batch(4)
    trained = build_seeded_model(experiment)
    initialize_weights(trained, experiment, images, recorder=None, tell=lambda _: None)
    torch.manual_seed(experiment.seed)
    built = build_segmentor(experiment.model, images)
    expected = trained.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in built.state_dict().items())


def with_neuron(config: ModelConfig, **changes: Any) -> ModelConfig:
    if changes.get("normalization") == "constant":
        changes["normalization_constant"] = 8.0
    return dataclasses.replace(config, neuron=dataclasses.replace(config.neuron, **changes))


@pytest.mark.parametrize("threshold", [1.0, 2.0])
@pytest.mark.parametrize(
    ("levels", "normalization", "family", "shortcut"),
    [
        (1, "none", "meta_spikeformer", "conv"),
        (1, "none", "e_spikeformer", "conv"),  # With D = 1, none and levels are one.
        (2, "levels", "e_spikeformer", "conv"),
        (2, "none", "meta_spikeformer", "conv"),
        (4, "levels", "meta_spikeformer", "conv"),
        (4, "none", "e_spikeformer", "conv"),
        (8, "levels", "meta_spikeformer", "conv"),
        (8, "none", "e_spikeformer", "conv"),
        (8, "constant", "e_spikeformer", "conv"),
        (1, "none", "meta_spikeformer", "none"),
        (4, "levels", "e_spikeformer", "none"),
        (8, "none", "meta_spikeformer", "none"),
        (1, "none", "e_spikeformer", "identity"),
        (8, "levels", "meta_spikeformer", "identity"),
        (2, "levels", "meta_spikeformer", "membrane"),
    ],
)
def test_a_new_training_starts_alive_whatever_its_neuron_and_shortcut(
    levels: int, normalization: str, threshold: float, family: str, shortcut: Any
) -> None:
    config = config_of(family, "query", "corrected")
    query = dataclasses.replace(config.query, shortcut=shortcut)
    health = first_step(
        with_neuron(
            dataclasses.replace(config, query=query),
            levels=levels,
            normalization=normalization,
            threshold=threshold,
        )
    )
    assert health.neurons.alive, str(health.neurons)
    assert min(row.rate for row in health.firing) > 0.005
    assert all(row.norm > 0 for row in health.gradients)
    # At most 1300 over all cases and five seeds; 1e10 and more where layers are silent.
    assert health.gradient_norm < 1e4


def test_a_divisor_far_above_d_silences_attention_among_few_tokens_and_is_named() -> None:
    # Nine tokens of eight channels, spikes of 1 / 8: the product is below 0.05 at its largest.
    config = with_neuron(small_config(), levels=1, normalization="constant")
    dead = first_step(config).neurons.dead
    assert dead and all(name.endswith("attn_spike") for name in dead)


def test_the_published_start_has_dead_layers_and_gradients_beyond_use() -> None:
    health = first_step(config_of("meta_spikeformer", "query", "published"))
    assert "dcn.mask_spike" in str(health.neurons)
    assert "decode_head.transformer_decoder.layers.2.self_attn.attn.attn_spike" in (
        health.neurons.dead
    )
    assert health.gradient_norm > 1e10


def test_dead_and_saturated_layers_are_named() -> None:
    model = nn.Sequential()
    for name in ("dead", "alive", "saturated"):
        model.add_module(name, IntegerLIF(FiringRule(levels=2, divisor=2)))
    with FiringMonitor(model) as monitor:
        model.dead(torch.full((1, 4), -1.0))  # pyright: ignore[reportCallIssue]
        model.alive(torch.tensor([[0.0, 1.0, 2.0, 0.0]]))  # pyright: ignore[reportCallIssue]
        model.saturated(torch.full((1, 4), 5.0))  # pyright: ignore[reportCallIssue]
    health = judge_firing(monitor.rows())
    assert (health.dead, health.saturated) == (["dead"], ["saturated"])
    assert str(health) == "1 dead: dead; 1 saturated: saturated"
    assert judge_firing(monitor.rows(), tolerance=0.5).dead == ["dead", "alive"]
    assert not health.alive


def test_looking_at_a_step_leaves_weights_and_gradients_alone() -> None:
    model = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    health = step_health(model, lambda: model(torch.ones(1, 3)).sum())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    # Six weights and two biases, each with gradient 1.
    assert health.gradient_norm == pytest.approx(8**0.5)


def test_the_figure_is_a_picture_of_both(tmp_path: Path) -> None:
    health = first_step(config_of("meta_spikeformer", "query", "published"))
    png = draw_health(health, "published start")
    assert png.startswith(b"\x89PNG") and len(png) > 10_000


def test_calibrated_norms_normalize_the_images_they_saw() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.1)).eval()
    images = 5 + 3 * torch.randn(2, 3, 16, 16)
    calibrate_norms(model, images)
    values = model(images)
    assert not model.training
    assert model[1].momentum == 0.1
    assert torch.allclose(values.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(values.std((0, 2, 3)), torch.ones(4), atol=1e-2)
