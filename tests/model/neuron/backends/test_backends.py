"""Every backend computes the law: one suite for torch, the kernels built by g++, and a GPU."""

import weakref

import pytest
import torch
from neuron_cases import (
    DTYPES,
    RULES,
    Place,
    assert_same,
    currents,
    firing_rule,
)
from torch import Tensor

from spikeseg.model.neuron.backends import kernel_calls
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import integer_lif, integer_lif_with_state
from spikeseg.model.neuron.lif import lif
from spikeseg.model.neuron.reference import (
    integer_backward,
    integer_forward,
    lif_backward,
    lif_forward,
)

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# 105 = 13 lanes of 8 neurons and one left over: the tail and, for T > 1, unaligned steps.
ODD, WHOLE = (3, 5, 7), (2, 8, 4)


def both_passes(x: Tensor, g: Tensor, place: Place, rule: FiringRule) -> tuple[Tensor, Tensor]:
    x = x.detach().to(place.device).requires_grad_()
    spikes = integer_lif(x, rule, backend=place.backend)
    spikes.backward(g.to(place.device))
    assert x.grad is not None
    return spikes, x.grad


def assert_lawful(x: Tensor, place: Place, rule: FiringRule) -> None:
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(x.dtype)
    g.view(-1)[::11] = float("inf")
    spikes, gradient = both_passes(x, g, place, rule)
    expected, inside, _ = integer_forward(x, rule)
    assert_same(spikes, expected)
    assert_same(gradient, integer_backward(g, inside, rule)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
@pytest.mark.parametrize("dynamics", ["stateless", "temporal"])
def test_spikes_and_gradients_are_the_laws_bits(
    place: Place, dtype: torch.dtype, steps: int, dynamics: str
) -> None:
    for name in RULES:
        rule = firing_rule(name, dynamics=dynamics)
        for shape in (ODD, WHOLE):
            x = currents((steps, *shape), dtype, rule.levels)
            assert_lawful(x, place, rule)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 255, 2048, 2049, 5003])
def test_every_size_has_its_whole_lanes_and_its_tail(place: Place, size: int) -> None:
    for dynamics in ("stateless", "temporal"):
        assert_lawful(currents((2, size), torch.float16, 8), place, firing_rule("published"))
        x = currents((2, size), torch.float32, 8)
        assert_lawful(x, place, firing_rule("published", dynamics=dynamics, decay=0.9))


def test_large_tensors_go_through_in_pieces(place: Place) -> None:
    x = currents((1, (1 << 18) + 13), torch.bfloat16, 8)
    assert_lawful(x, place, firing_rule("published"))


@pytest.mark.parametrize("dtype", DTYPES[::2], ids=str)
def test_long_sequences_go_through_in_pieces(place: Place, dtype: torch.dtype) -> None:
    rule = firing_rule("published", dynamics="temporal")
    x = currents((2, (1 << 17) + 13), dtype, 8)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(dtype)
    _, inside, _ = integer_forward(x, rule)
    for last in (1.0, float("inf")):
        g[1, -1] = last
        _, gradient = both_passes(x, g, place, rule)
        assert_same(gradient, integer_backward(g, inside, rule)[0])


@pytest.mark.parametrize("dtype", DTYPES[::2], ids=str)
@pytest.mark.parametrize("tau", [2.0, 3.0])
def test_long_binary_sequences_go_through_in_pieces(
    place: Place, dtype: torch.dtype, tau: float
) -> None:
    # NaN stands in the first piece alone, and has to stay there.
    x = torch.randn(3, (1 << 17) + 13, generator=torch.Generator().manual_seed(2)) + 1
    x[1, 5], x[0, 6], x[0, 7] = float("nan"), float("inf"), -float("inf")
    x = x.to(dtype)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(dtype)
    on = x.to(place.device).requires_grad_()
    spikes = lif(on, tau=tau, backend=place.backend)
    spikes.backward(g.to(place.device))
    assert_same(spikes, lif_forward(x, tau=tau, threshold=1.0))
    expected = lif_backward(g, x, tau=tau, threshold=1.0, alpha=4.0)
    assert on.grad is not None
    torch.testing.assert_close(
        on.grad.cpu().float(),
        expected.float(),
        rtol=TOLERANCE[dtype],
        atol=TOLERANCE[dtype] * 1e-2,
    )


def test_float64_follows_the_law_in_its_own_precision() -> None:
    for name in RULES:
        for dynamics in ("stateless", "temporal"):
            rule = firing_rule(name, dynamics=dynamics)
            x = currents((3, 50), torch.float64, rule.levels)
            assert_lawful(x, Place("cpu", "torch"), rule)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("given", [True, False], ids=["state", "no state"])
def test_state_passes_through_with_its_gradient(
    place: Place, dtype: torch.dtype, given: bool
) -> None:
    rule = firing_rule("odd", dynamics="temporal")
    # With NaN: dL/ds stops there, the gradient of the state passes.
    x = currents((4, *ODD), dtype, 3)
    state = torch.randn(ODD, generator=torch.Generator().manual_seed(1)) if given else None
    g, last = torch.randn(x.shape).to(dtype), torch.randn(ODD)
    expected, inside, after = integer_forward(x, rule, state=state)
    wanted, before = integer_backward(g, inside, rule, state_gradient=last)
    on = x.to(place.device).requires_grad_()
    held = state.to(place.device).requires_grad_() if state is not None else None
    spikes, left = integer_lif_with_state(on, held, rule, backend=place.backend)
    torch.autograd.backward([spikes, left], [g.to(place.device), last.to(place.device)])
    assert_same(spikes, expected)
    assert_same(left, after)
    assert on.grad is not None
    assert_same(on.grad, wanted)
    if held is not None:
        assert held.grad is not None
        assert_same(held.grad, before)


def test_a_state_and_its_gradient_may_lie_unaligned(place: Place) -> None:
    # Kernels read them 16 bytes at a time.
    rule = firing_rule("counts", dynamics="temporal")
    x = currents((2, 64), torch.float32).to(place.device).requires_grad_()
    state, last = torch.randn(2, 65, generator=torch.Generator().manual_seed(1))
    results = []
    for offset in (1, 0):
        u, du = (torch.cat([torch.zeros(offset), t[1:]]).to(place.device) for t in (state, last))
        u, du = u[offset:].requires_grad_(), du[offset:]
        assert offset == 0 or u.data_ptr() % 16 == du.data_ptr() % 16 == 4
        spikes, left = integer_lif_with_state(x, u, rule, backend=place.backend)
        gradients = torch.autograd.grad([spikes, left], [x, u], [torch.ones_like(x), du])
        results.append([spikes, left, *gradients])
    for unaligned, aligned in zip(*results, strict=True):
        assert_same(unaligned, aligned)


@pytest.mark.parametrize(
    ("dtype", "steps"),
    [(torch.float32, t) for t in (1, 2, 4, 7, 19)] + [(t, 7) for t in DTYPES[1:]],
    ids=str,
)
@pytest.mark.parametrize(("tau", "alpha"), [(2.0, 4.0), (3.0, 1.5)])
def test_binary_spikes_are_the_laws_bits_and_gradients_close(
    place: Place, dtype: torch.dtype, steps: int, tau: float, alpha: float
) -> None:
    for shape in (ODD, WHOLE):
        x = currents((steps, *shape), dtype, 1)
        g = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
        on = x.to(place.device).requires_grad_()
        spikes = lif(on, tau=tau, threshold=0.5, alpha=alpha, backend=place.backend)
        spikes.backward(g.to(place.device))
        assert_same(spikes, lif_forward(x, tau=tau, threshold=0.5))
        assert on.grad is not None
        torch.testing.assert_close(
            on.grad.cpu().float(),
            lif_backward(g, x, tau=tau, threshold=0.5, alpha=alpha).float(),
            rtol=TOLERANCE[dtype],
            atol=TOLERANCE[dtype] * 1e-2,
        )


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("dynamics", ["stateless", "temporal"])
def test_a_dense_layout_is_kept_and_gives_the_same_numbers(place: Place, dynamics: str) -> None:
    x = channels_last(currents((2, 3, 4, 5, 6), torch.float32))
    g = torch.randn(x.shape)
    rule = firing_rule("published", dynamics=dynamics)
    spikes, gradient = both_passes(x, g, place, rule)
    assert spikes.stride() == x.stride()
    assert gradient.stride() == x.stride()
    plain = both_passes(x.contiguous(), g, place, rule)
    assert_same(spikes, plain[0])
    assert_same(gradient, plain[1])


@pytest.mark.parametrize("dynamics", ["stateless", "temporal"])
def test_strided_views_and_unaligned_bases_give_the_same_numbers(
    place: Place, dynamics: str
) -> None:
    whole = currents((2, 6, 10, 9), torch.float16)
    rule = firing_rule("published", dynamics=dynamics)
    flat = currents((2 * 64 + 1,), torch.float16)
    views = (
        whole[:, :, ::2],
        whole[:, 1:5, :, 2:7],
        whole.transpose(0, 1)[:2],
        whole[:, :1].expand(2, 6, 10, 9),
        flat[1:].view(2, 64),
    )
    for view in views:
        assert_lawful(view, place, rule)


def test_gradients_of_any_layout_are_taken(place: Place) -> None:
    rule = firing_rule("published", dynamics="temporal")
    x = currents((2, 4, 6, 5), torch.float32)
    gradients = (
        torch.ones(()).expand(x.shape),
        torch.randn(4, 1, 5).expand(x.shape),
        torch.randn(5, 6, 4, 2).permute(3, 2, 1, 0),
        torch.randn(2, 4, 6, 10)[..., ::2],
    )
    for dynamics in ("stateless", "temporal"):
        rule = firing_rule("published", dynamics=dynamics)
        inside = integer_forward(x, rule)[1]
        for g in gradients:
            _, gradient = both_passes(x, g, place, rule)
            assert_same(gradient, integer_backward(g, inside, rule)[0])
    g = gradients[1]
    on = x.to(place.device).requires_grad_()
    lif(on, backend=place.backend).backward(g.to(place.device))
    assert on.grad is not None
    expected = lif_backward(g, x, tau=2.0, threshold=1.0, alpha=4.0)
    torch.testing.assert_close(on.grad.cpu(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_copy_that_is_the_benchmarks_ceiling_copies(place: Place, dtype: torch.dtype) -> None:
    if place.backend == "torch":
        pytest.skip("a kernel alone")
    for x in (currents((3, 83), dtype), currents((1, 130), dtype)[0, 1:]):
        on = x.to(place.device)
        assert_same(kernel_calls.copy(on, torch.zeros_like(on)), x)


def test_empty_tensors_pass_through(place: Place) -> None:
    for shape in ((2, 0), (1, 3, 0, 4)):
        x = torch.empty(shape, device=place.device, requires_grad=True)
        for dynamics in ("stateless", "temporal"):
            rule = firing_rule("published", dynamics=dynamics)
            spikes = integer_lif(x, rule, backend=place.backend)
            assert spikes.shape == shape
            spikes.sum().backward()
        lif(x, backend=place.backend).sum().backward()


def test_without_gradients_nothing_is_saved(place: Place) -> None:
    x = currents((2, 40), torch.float32).to(place.device)
    with torch.no_grad():
        plain = integer_lif(x.requires_grad_(), firing_rule("published"), backend=place.backend)
    assert plain.grad_fn is None
    assert_same(plain, integer_forward(x.detach().cpu(), firing_rule("published"))[0])


def test_the_kernels_save_one_bit_an_element(place: Place) -> None:
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    for dynamics in ("stateless", "temporal"):
        saved.clear()
        x = torch.randn(4, 800, device=place.device, requires_grad=True) * 2
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            spikes = integer_lif(
                x, firing_rule("published", dynamics=dynamics), backend=place.backend
            )
        size = sum(tensor.numel() * tensor.element_size() for tensor in saved)
        assert size == (x.numel() if place.backend == "torch" else x.numel() // 8)
        # Nor is the input kept in another way.
        alive = weakref.ref(x)
        del x
        assert alive() is None and spikes.requires_grad
