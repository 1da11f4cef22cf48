"""BatchNorm and neuron as one operation: the network computes what it does with both apart."""

import dataclasses
from typing import Any

import pytest
import torch
from models import shapes_batch, small_config
from torch import Tensor, nn

from spikeseg.model.accounting.firing import FiringMonitor
from spikeseg.model.backbone import blocks
from spikeseg.model.backbone.blocks import fire_after
from spikeseg.model.config import LossConfig
from spikeseg.model.initialize import start_alive
from spikeseg.model.loss.criterion import build_criterion
from spikeseg.model.neuron import batch_norm_lif
from spikeseg.model.neuron.batch_norm_lif import batch_norm_integer_lif
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.segmentor import build_segmentor


class Fused:
    """`normalize_and_fire` as on the CUDA kernels, on torch's path, for every kind of BatchNorm."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, norm: Any, neuron: IntegerLIF, x: Tensor) -> Tensor:
        if not norm.training or neuron.dynamics != "stateless":
            return neuron(norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        self.calls += 1
        spikes, mean, variance = batch_norm_integer_lif(
            x.flatten(0, 1),
            norm.weight,
            norm.bias,
            eps=norm.eps,
            levels=neuron.levels,
            divisor=neuron.divisor,
            threshold=neuron.threshold,
            rounding=neuron.rounding,
            window=neuron.window,
            backend="torch",
        )
        batch_norm_lif._advance(norm, mean, variance, x.numel() / x.shape[2])
        return spikes.unflatten(0, x.shape[:2])


def step_of(family: Any, decoder: Any, compat: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss, and gradients and statistics by name, of one step in float64."""
    config = small_config()
    config = dataclasses.replace(
        config,
        backbone=dataclasses.replace(config.backbone, family=family),
        decoder=decoder,
        compat=compat,
    )
    torch.manual_seed(0)
    model = build_segmentor(config).double()
    start_alive(model)
    images, labels = shapes_batch(2)
    criterion = build_criterion(LossConfig(), config).double()
    terms = criterion(model(images.double()), labels, criterion.count(labels))
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), {**found, **dict(model.named_buffers())}


@pytest.mark.parametrize("compat", ["published", "corrected"])
@pytest.mark.parametrize(
    ("family", "decoder"), [("meta_spikeformer", "query"), ("e_spikeformer", "fpn")]
)
def test_a_step_is_the_same_fused_and_apart(
    monkeypatch: pytest.MonkeyPatch, family: str, decoder: str, compat: str
) -> None:
    loss, apart = step_of(family, decoder, compat)
    fused = Fused()
    monkeypatch.setattr(blocks, "normalize_and_fire", fused)
    same, together = step_of(family, decoder, compat)
    assert fused.calls > 20
    torch.testing.assert_close(same, loss, rtol=1e-9, atol=0)
    assert apart.keys() == together.keys()
    # The bias of a convolution before a BatchNorm has no gradient but the noise of sums.
    largest = max(float(value.abs().max()) for value in apart.values())
    for name, value in apart.items():
        scale = float(value.double().abs().max()) + 1e-6 * largest
        torch.testing.assert_close(
            together[name], value, rtol=1e-5, atol=1e-6 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_batch_norm_and_neuron_compile_as_one_graph_in_training() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.neuron = IntegerLIF(levels=4, divisor=4.0)

        def forward(self, x: Tensor) -> Tensor:
            return fire_after(self.layers, self.neuron, x)

    torch.manual_seed(0)
    block, x = Block().train(), torch.randn(2, 2, 3, 6, 6, requires_grad=True)
    expected = block(x)
    (wanted,) = torch.autograd.grad(expected.sum(), x)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")(x)
    (gradient,) = torch.autograd.grad(compiled.sum(), x)
    assert torch.equal(compiled, expected)
    torch.testing.assert_close(gradient, wanted)


def test_somebody_who_looks_at_a_neuron_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = Fused()
    monkeypatch.setattr(blocks, "normalize_and_fire", fused)
    model = build_segmentor(small_config())
    images = shapes_batch(2)[0]
    neurons = sum(isinstance(module, IntegerLIF) for module in model.modules())
    with FiringMonitor(model) as monitor:
        model(images)
    assert len(monitor.rows()) == neurons and fused.calls == 0
    model(images)
    assert fused.calls > 20


def test_what_is_no_batch_norm_or_no_integer_neuron_runs_as_it_is() -> None:
    x = torch.randn(2, 3, 4, 5, 5)
    neuron = IntegerLIF(levels=4, divisor=4)
    conv = nn.Conv2d(4, 6, 1)
    assert torch.equal(
        fire_after(nn.Sequential(conv, nn.Identity()), neuron, x),
        neuron(conv(x.flatten(0, 1)).unflatten(0, (2, 3))),
    )
    assert torch.equal(fire_after(nn.Identity(), neuron, x), neuron(x))
    norm = nn.BatchNorm2d(4)
    assert torch.equal(
        fire_after(norm, nn.ReLU(), x), norm(x.flatten(0, 1)).unflatten(0, (2, 3)).relu()
    )
