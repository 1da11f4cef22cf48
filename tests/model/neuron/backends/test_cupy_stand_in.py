"""The kernels through all of `cuda.py`, on two streams in two threads, with a stand-in for cupy."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cupy_stand_in import CupyStandIn, use_cupy_stand_in
from neuron_cases import assert_same, currents, firing_rule
from torch import Tensor

from spikeseg.model.neuron.backends import cuda, kernel_calls
from spikeseg.model.neuron.batch_norm_lif import batch_norm_integer_lif
from spikeseg.model.neuron.integer_lif import integer_lif
from spikeseg.model.neuron.lif import lif

STREAMS = (0x7000_0000_1000, 0x7000_0000_2000)
# Odd, and enough blocks that launches of two threads are under way at the same time.
SHAPE = (4, 3, 5, 1031)
Neuron = Callable[[Tensor, str], Tensor]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> CupyStandIn:
    return use_cupy_stand_in(monkeypatch)


def fused(x: Tensor, backend: str) -> Tensor:
    """BatchNorm and neuron on (T, B, C, H)."""
    weight, bias = torch.linspace(0.5, 2, x.shape[2]), torch.linspace(-1, 1, x.shape[2])
    rule = firing_rule("published")
    spikes, _, _ = batch_norm_integer_lif(
        x.flatten(0, 1),
        weight,
        bias,
        rule,
        eps=1e-5,
        backend=backend,  # pyright: ignore
    )
    return spikes.unflatten(0, x.shape[:2])


NEURONS: dict[str, Neuron] = {
    "stateless": lambda x, backend: integer_lif(x, firing_rule("odd"), backend=backend),  # pyright: ignore
    "temporal": lambda x, backend: integer_lif(
        x,
        firing_rule("half_up", dynamics="temporal"),
        backend=backend,  # pyright: ignore
    ),
    "binary": lambda x, backend: lif(x, backend=backend),  # pyright: ignore
    "norm": fused,
}
# What only one of the kernels has: they sum, or have an exponential, in another order of rounding.
CLOSE = {"binary", "norm"}


def both_passes(neuron: Neuron, seed: int, backend: str) -> tuple[Tensor, Tensor]:
    """Spikes and dL/dx of an input of its own for each seed."""
    generator = torch.Generator().manual_seed(seed)
    x = (
        torch.randn(SHAPE, generator=generator) * 3
        if neuron is fused
        else currents(SHAPE, torch.float32, seed=seed)
    )
    x.requires_grad_()
    spikes = neuron(x, backend)
    spikes.backward(torch.randn(spikes.shape, generator=generator))
    assert x.grad is not None
    return spikes.detach(), x.grad


def assert_equal(name: str, found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert_same(found[0], expected[0])
    if name in CLOSE:
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6, equal_nan=True)
    else:
        assert_same(found[1], expected[1])


def test_two_streams_in_two_threads_compute_what_torch_does(stand_in: CupyStandIn) -> None:
    rounds = 3
    wanted = {
        (name, seed): both_passes(neuron, seed, "torch")
        for name, neuron in NEURONS.items()
        for seed in range(2 * rounds)
    }
    barrier = threading.Barrier(2)
    found: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def work(number: int) -> int:
        with stand_in.stream(STREAMS[number]):
            for seed in range(number, 2 * rounds, 2):
                # The same kernel, first used, and used, by both at once.
                for name, neuron in NEURONS.items():
                    barrier.wait(30)
                    found[name, seed] = both_passes(neuron, seed, "cuda")
        return threading.get_ident()

    with ThreadPoolExecutor(2) as pool:
        threads = list(pool.map(work, range(2)))
    assert found.keys() == wanted.keys()
    for (name, seed), passes in found.items():
        assert_equal(name, passes, wanted[name, seed])
    assert len(set(threads)) == 2
    for thread, stream in zip(threads, STREAMS, strict=True):
        mine = [launch for launch in stand_in.launches if launch.thread == thread]
        assert {launch.stream for launch in mine} == {stream}
        assert {launch.kernel for launch in mine} == set(cuda.FILES) - {"lane_copy"}
        assert len(mine) == rounds * 9
    assert len(stand_in.launches) == 2 * rounds * 9


def test_backward_goes_to_the_stream_of_its_own_time(stand_in: CupyStandIn) -> None:
    x = currents((2, 3, 40), torch.float32).requires_grad_()
    with stand_in.stream(STREAMS[0]):
        spikes = integer_lif(x, firing_rule("published"), backend="cuda")
        with stand_in.stream(STREAMS[1]):
            spikes.sum().backward()
        integer_lif(x, firing_rule("published"), backend="cuda")
    seen = [(launch.kernel, launch.stream) for launch in stand_in.launches]
    assert seen == [
        ("integer_forward", STREAMS[0]),
        ("integer_backward", STREAMS[1]),
        ("integer_forward", STREAMS[0]),
    ]


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)],
    ids=str,
)
def test_the_compilers_options_reach_the_kernels(stand_in: CupyStandIn, dtype: torch.dtype) -> None:
    x = torch.arange(40, dtype=dtype)
    result = torch.empty_like(x)
    assert torch.equal(kernel_calls.copy(x, result), x)
    ((file, options),) = stand_in.compiled
    assert file == "copy.cu"
    assert f"-DNEURON_STORAGE={cuda.STORAGE[dtype]}" in options
    assert "--gpu-architecture=sm_90" in options


def test_the_newest_binary_that_runs_is_made_for_each_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for capability, architecture in (((8, 7), 86), ((9, 0), 90), ((12, 1), 120)):
        stand_in = use_cupy_stand_in(monkeypatch, build=False, capability=capability)
        kernel_calls.copy(torch.zeros(8), torch.zeros(8))
        assert f"--gpu-architecture=sm_{architecture}" in stand_in.compiled[0][1]
