"""The law: by hand, then its properties, published numbers, and derivatives by other ways."""

from typing import Any

import pytest
import torch
from golden import Golden
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from neuron_cases import RULES, firing_rule
from torch import Tensor

from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.reference import (
    charge_lif,
    integer_backward,
    integer_forward,
    lif_backward,
    lif_forward,
)

# How long an example takes says nothing about the law.
untimed = hypothesis_settings(deadline=None)

NAN, INF = float("nan"), float("inf")


def test_two_steps_of_two_levels_are_as_computed_on_paper() -> None:
    # h1 = 2.6 -> count 2 (clamped), u1 = 0.5 (2.6 - 2) = 0.3; h2 = 0.3 + 0.9 = 1.2 -> 1, u2 = 0.1.
    x = torch.tensor([[2.6], [0.9]], dtype=torch.float64)
    rule = firing_rule("counts", levels=2, divisor=2.0, dynamics="temporal", decay=0.5)
    spikes, inside, u = integer_forward(x, rule)
    assert spikes.flatten().tolist() == [1.0, 0.5]
    assert inside.flatten().tolist() == [False, True]
    assert u.item() == pytest.approx(0.1)
    # g2 enters through the window of step 2 alone; step 1 is outside, so half of G1 passes.
    gradient, _ = integer_backward(torch.tensor([[3.0], [8.0]], dtype=torch.float64), inside, rule)
    assert gradient.flatten().tolist() == [2.0, 4.0]


def test_exact_halves_round_to_even_or_up() -> None:
    x = torch.tensor([[0.5, 1.5, 2.5, 3.5]])
    even, _, _ = integer_forward(x, firing_rule("counts"))
    up, _, _ = integer_forward(x, firing_rule("counts", rounding="half_up"))
    assert even.tolist() == [[0.0, 2.0, 2.0, 4.0]]
    assert up.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_the_window_holds_its_ends_or_not() -> None:
    x = torch.tensor([[-0.1, 0.0, 0.1, 3.9, 4.0, 4.1]])
    _, closed, _ = integer_forward(x, firing_rule("counts"))
    _, opened, _ = integer_forward(x, firing_rule("counts", window="open"))
    assert closed.tolist() == [[False, True, True, True, True, False]]
    assert opened.tolist() == [[False, False, True, True, False, False]]


def test_nan_gives_a_nan_spike_and_no_gradient_and_stays_in_the_potential() -> None:
    x = torch.tensor([[NAN, 1.0], [1.0, NAN], [1.0, 1.0]])
    rule = firing_rule("published", dynamics="temporal")
    spikes, inside, u = integer_forward(x, rule)
    gradient, _ = integer_backward(torch.ones_like(x), inside, rule)
    assert spikes.isnan().tolist() == [[True, False], [True, True], [True, True]]
    assert u.isnan().all()
    assert gradient.tolist() == [[0.0, 0.125], [0.0, 0.0], [0.0, 0.0]]
    # The potential's gradient passes, times the decay at each step.
    last = {"state_gradient": torch.ones(2)}
    gradient, before = integer_backward(torch.ones_like(x), inside, rule, **last)
    assert gradient.tolist() == [[1 / 64, 0.125], [1 / 16, 1 / 16], [1 / 4, 1 / 4]]
    assert before.tolist() == [1 / 64, 0.125]
    spikes = lif_forward(x, tau=2.0, threshold=1.0)
    assert spikes.isnan().tolist() == [[True, False], [True, True], [True, True]]
    gradient = lif_backward(torch.ones_like(x), x, tau=2.0, threshold=1.0, alpha=4.0)
    assert gradient.isfinite().all()
    assert gradient[:, 0].tolist() == [0.0, 0.0, 0.0]


def test_infinities_saturate() -> None:
    spikes, inside, _ = integer_forward(torch.tensor([[INF, -INF]]), firing_rule("published"))
    assert spikes.tolist() == [[1.0, 0.0]]
    assert not inside.any()


def test_an_infinite_gradient_outside_of_the_window_is_zero() -> None:
    rule = firing_rule("published")
    _, inside, _ = integer_forward(torch.tensor([[-1.0, 9.0, 1.0]]), rule)
    gradient, _ = integer_backward(torch.tensor([[INF, NAN, INF]]), inside, rule)
    assert gradient.tolist() == [[0.0, 0.0, INF]]


@untimed
@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20), st.sampled_from([*RULES]))
def test_firing_rate_never_exceeds_levels(values: list[float], name: str) -> None:
    rule = firing_rule(name, dynamics="temporal")
    spikes, _, _ = integer_forward(torch.tensor(values)[:, None], rule)
    counts = spikes * rule.divisor
    assert counts.min() >= 0 and counts.max() <= rule.levels * (1 + 1e-6)
    torch.testing.assert_close(counts, counts.round())


@untimed
@given(st.lists(st.floats(-3, 12, width=32), min_size=1, max_size=20), st.integers(1, 8))
def test_a_count_is_the_number_of_binary_spikes_of_its_unrolling(
    values: list[float], levels: int
) -> None:
    # Half-up counts are what `levels` binary neurons with thresholds 0.5, 1.5, ... emit together.
    x = torch.tensor(values, dtype=torch.float64)
    rule = firing_rule("counts", levels=levels, rounding="half_up")
    spikes, _, _ = integer_forward(x[None], rule)
    unrolled = sum((x >= k + 0.5).double() for k in range(levels))
    # Adding a half to the float below a half is 1 exactly: the sum rounds.
    near = ((x + 0.5) - (x + 0.5).round()).abs() < 1e-12
    assert isinstance(unrolled, Tensor)
    assert torch.equal(spikes[0][~near], unrolled[~near])


@untimed
@given(st.lists(st.floats(-5, 9, width=32), min_size=1, max_size=12))
def test_without_decay_no_charge_is_lost(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    rule = firing_rule("counts", dynamics="temporal", decay=1.0)
    spikes, _, u = integer_forward(x, rule)
    torch.testing.assert_close(spikes.sum(0) + u, x.sum(0))


def test_with_decay_zero_the_temporal_neuron_is_stateless() -> None:
    x = torch.randn(5, 40) * 4
    temporal = integer_forward(x, firing_rule("published", dynamics="temporal", decay=0.0))
    stateless = integer_forward(x, firing_rule("published"))
    assert torch.equal(temporal[0], stateless[0])
    assert torch.equal(temporal[1], stateless[1])


def test_a_sequence_in_two_parts_is_the_sequence_in_one() -> None:
    x = torch.randn(6, 30) * 3
    rule = firing_rule("odd", dynamics="temporal")
    whole, _, last = integer_forward(x, rule)
    first, _, state = integer_forward(x[:2], rule)
    second, _, end = integer_forward(x[2:], rule, state=state)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(end, last)


def straight_through(x: Tensor, rule: FiringRule) -> tuple[Tensor, Tensor]:
    """The neuron as autograd differentiates it: the round is left out of the backward pass."""
    u = torch.zeros_like(x[0])
    spikes = []
    for current in x:
        h = u + current if rule.dynamics == "temporal" else current
        clamped = (h / rule.threshold).clamp(0, rule.levels)
        half_up = rule.rounding == "half_up"
        count = clamped + ((clamped + 0.5).floor() if half_up else clamped.round()).detach()
        count = count - clamped.detach()
        u = (h - count * rule.threshold) * rule.decay
        spikes.append(count / rule.divisor)
    return torch.stack(spikes), u


@pytest.mark.parametrize("dynamics", ["stateless", "temporal"])
@pytest.mark.parametrize("name", [*RULES])
def test_the_gradient_is_what_autograd_makes_of_a_straight_through_round(
    name: str, dynamics: str
) -> None:
    rule = firing_rule(name, dynamics=dynamics)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 200, generator=generator, dtype=torch.float64) * rule.levels
    x.requires_grad_()
    expected, u = straight_through(x, rule)
    g = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    last = torch.randn(u.shape, generator=generator, dtype=torch.float64)
    last = last if dynamics == "temporal" else torch.zeros_like(last)
    (wanted,) = torch.autograd.grad([expected, u], x, [g, last])
    spikes, inside, _ = integer_forward(x.detach(), rule)
    gradient, _ = integer_backward(g, inside, rule, state_gradient=last)
    torch.testing.assert_close(spikes, expected.detach())
    torch.testing.assert_close(gradient, wanted)


def test_the_gradient_is_the_finite_difference_where_the_round_is_left_out() -> None:
    # Without the round the neuron is piecewise linear: central differences are exact inside.
    rule = firing_rule("odd", dynamics="temporal", decay=0.6, window="closed")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 60, generator=generator, dtype=torch.float64) * 3
    g = torch.randn(4, 60, generator=generator, dtype=torch.float64)

    def relaxed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = torch.zeros_like(x[0])
        spikes, inside = [], []
        for current in x:
            h = u + current
            ratio = h / rule.threshold
            count = ratio.clamp(0, rule.levels)
            u = (h - count * rule.threshold) * rule.decay
            spikes.append(count / rule.divisor)
            inside.append((ratio >= 0) & (ratio <= rule.levels))
        return torch.stack(spikes), torch.stack(inside), u

    inside = relaxed(x)[1]
    gradient, _ = integer_backward(g, inside, rule)
    step = 1e-6
    for t in range(4):
        moved = torch.zeros_like(x)
        moved[t] = step
        up, down = relaxed(x + moved), relaxed(x - moved)
        smooth = (up[1] == inside).all(0) & (down[1] == inside).all(0)
        assert smooth.float().mean() > 0.9
        slope = ((up[0] - down[0]) * g).sum(0) / (2 * step)
        torch.testing.assert_close(slope[smooth], gradient[t][smooth], rtol=1e-6, atol=1e-8)


def test_the_lif_gradient_is_the_finite_difference_of_sigmoids_with_fixed_resets() -> None:
    tau, threshold, alpha = 3.0, 0.8, 4.0
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5, 50, generator=generator, dtype=torch.float64) * 2
    g = torch.randn(5, 50, generator=generator, dtype=torch.float64)
    fired = charge_lif(x, tau=tau, threshold=threshold) >= threshold
    assert fired.any() and not fired.all()

    def relaxed(x: Tensor) -> Tensor:
        v = torch.zeros_like(x[0])
        outputs = []
        for current, reset in zip(x, fired, strict=True):
            h = v + (current - v) / tau
            outputs.append(torch.sigmoid(alpha * (h - threshold)))
            v = torch.where(reset, 0.0, h)
        return torch.stack(outputs)

    gradient = lif_backward(g, x, tau=tau, threshold=threshold, alpha=alpha)
    step = 1e-6
    for t in range(5):
        moved = torch.zeros_like(x)
        moved[t] = step
        slope = ((relaxed(x + moved) - relaxed(x - moved)) * g).sum(0) / (2 * step)
        torch.testing.assert_close(slope, gradient[t], rtol=1e-5, atol=1e-8)


GOLDEN = {
    "q_ifnode_d8": firing_rule("published"),
    "multispike_norm_d4": firing_rule("counts", divisor=4.0),
    "multispike_4_unnormalised": firing_rule("counts"),
    "sdtv3_multispike_d4_norm1": firing_rule("counts"),
    "sdtv3_large_multispike": firing_rule("large"),
}


@pytest.mark.parametrize("name", [*GOLDEN])
def test_the_law_is_the_published_neuron(shared_folder: Any, name: str) -> None:
    golden = Golden(shared_folder / "reference" / "golden" / "neurons.npz")
    x = golden.tensor("in:x")
    assert not x.isnan().any()
    rule = GOLDEN[name]
    spikes, inside, _ = integer_forward(x[None], rule)
    gradient, _ = integer_backward(golden.tensor("cot")[None], inside, rule)
    assert torch.equal(spikes[0], golden.tensor(f"{name}/out"))
    assert torch.equal(gradient[0], golden.tensor(f"{name}/gin"))


@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_the_law_is_the_published_binary_lif(shared_folder: Any, threshold: float) -> None:
    golden = Golden(shared_folder / "reference" / "golden" / "neurons.npz")
    x, name = golden.tensor("lif/in"), f"lif_tau2_vth{threshold:g}"
    assert torch.equal(lif_forward(x, tau=2.0, threshold=threshold), golden.tensor(f"{name}/out"))
    gradient = lif_backward(golden.tensor("lif/cot"), x, tau=2.0, threshold=threshold, alpha=4.0)
    golden.assert_close(gradient, f"{name}/gin")
