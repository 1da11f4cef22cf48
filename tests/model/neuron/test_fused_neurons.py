"""BatchNorm and neuron as one operation: the network computes what it does with both apart."""

import dataclasses
from typing import Any

import pytest
import torch
from host_kernels import use_host_kernels
from models import shapes_batch, small_config
from torch import Tensor, nn

from spikeseg.model.accounting.firing import FiringMonitor
from spikeseg.model.config import LossConfig
from spikeseg.model.initialize import calibrate_attention, start_alive
from spikeseg.model.layers.blocks import fire_after
from spikeseg.model.loss.criterion import build_criterion
from spikeseg.model.neuron import batch_norm_lif
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.segmentor import build_uncalibrated_segmentor


class Fused:
    """The fused way taken as where the kernels run, whichever backend then computes it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        whole = batch_norm_lif.batch_norm_integer_lif

        def counted(*arguments: Any, **more: Any) -> Any:
            self.calls += 1
            return whole(*arguments, **more)

        monkeypatch.setattr(batch_norm_lif, "choose_backend", lambda *_: "cuda")
        monkeypatch.setattr(batch_norm_lif, "batch_norm_integer_lif", counted)


def step_of(
    family: Any, decoder: Any, compat: Any, *, dtype: torch.dtype, backend: Any, **neuron: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss, and gradients and statistics by name, of one step."""
    config = small_config()
    config = dataclasses.replace(
        config,
        neuron=dataclasses.replace(config.neuron, backend=backend, **neuron),
        backbone=dataclasses.replace(config.backbone, family=family),
        decoder=decoder,
        compat=compat,
    )
    torch.manual_seed(0)
    model = build_uncalibrated_segmentor(config).to(dtype)
    start_alive(model)
    images, labels = shapes_batch(2)
    calibrate_attention(model, images.to(dtype), rounds=4)
    criterion = build_criterion(LossConfig(), config).to(dtype)
    terms = criterion(model(images.to(dtype)), labels, criterion.count(labels))
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), {**found, **dict(model.named_buffers())}


def assert_close(
    actual: dict[str, Tensor], expected: dict[str, Tensor], *, rtol: float, noise: float
) -> None:
    """All gradients and statistics, relative to the largest value of each."""
    assert actual.keys() == expected.keys()
    # The bias of a convolution before a BatchNorm has no gradient but the noise of sums, which is
    # a few units in the last place of the largest gradient.
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        own = float(value.double().abs().max())
        torch.testing.assert_close(
            actual[name],
            value,
            rtol=rtol,
            atol=rtol * own + noise * largest,
            msg=lambda m, n=name: f"{n}: {m}",
        )


# Away from every default, so that a constant that is not passed on is seen.
ODD = {"normalization": "constant", "normalization_constant": 3.0, "threshold": 0.7}
ODD |= {"rounding": "half_up", "window": "open"}


@pytest.mark.parametrize("neuron", [{}, ODD], ids=["published", "odd"])
@pytest.mark.parametrize("compat", ["published", "corrected"])
@pytest.mark.parametrize(
    ("family", "decoder"), [("meta_spikeformer", "query"), ("e_spikeformer", "fpn")]
)
def test_a_step_is_the_same_fused_and_apart(
    monkeypatch: pytest.MonkeyPatch, family: str, decoder: str, compat: str, neuron: dict[str, Any]
) -> None:
    how = {"dtype": torch.float64, "backend": "torch"} | neuron
    loss, apart = step_of(family, decoder, compat, **how)
    fused = Fused(monkeypatch)
    same, together = step_of(family, decoder, compat, **how)
    assert fused.calls > 20
    torch.testing.assert_close(same, loss, rtol=1e-9, atol=0)
    assert_close(together, apart, rtol=1e-6, noise=1e-12)


@pytest.mark.parametrize(
    ("family", "decoder"), [("meta_spikeformer", "query"), ("e_spikeformer", "fpn")]
)
def test_a_step_on_the_kernels_is_that_on_torch(
    monkeypatch: pytest.MonkeyPatch, family: str, decoder: str
) -> None:
    use_host_kernels(monkeypatch)
    fused = Fused(monkeypatch)
    loss, expected = step_of(family, decoder, "published", dtype=torch.float32, backend="torch")
    same, actual = step_of(family, decoder, "published", dtype=torch.float32, backend="cuda")
    assert fused.calls > 40
    # Spikes are the same bits; of the backward pass the order of sums is another.
    assert torch.equal(same, loss)
    assert_close(actual, expected, rtol=1e-3, noise=1e-5)


@pytest.mark.parametrize("together", [False, True], ids=["apart", "fused"])
def test_batch_norm_and_neuron_compile_as_one_graph_in_training(
    monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    if together:
        monkeypatch.setattr(batch_norm_lif, "choose_backend", lambda *_: "cuda")

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.neuron = IntegerLIF(FiringRule(levels=4, divisor=4.0))

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
    fused = Fused(monkeypatch)
    model = build_uncalibrated_segmentor(small_config())
    images = shapes_batch(2)[0]
    neurons = sum(isinstance(module, IntegerLIF) for module in model.modules())
    with FiringMonitor(model) as monitor:
        model(images)
    assert len(monitor.rows()) == neurons and fused.calls == 0
    model(images)
    assert fused.calls > 20


def test_what_is_no_batch_norm_or_no_integer_neuron_runs_as_it_is() -> None:
    x = torch.randn(2, 3, 4, 5, 5)
    neuron = IntegerLIF(FiringRule(levels=4, divisor=4))
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
