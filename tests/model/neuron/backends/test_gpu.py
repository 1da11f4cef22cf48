"""What only a GPU shows: streams, graphs, devices, sizes, memory. The rest runs there as well."""

import threading
from collections.abc import Iterator

import pytest
import torch
from neuron_cases import assert_same, currents, firing_rule, require_gpu
from torch import nn

from spikeseg.model.neuron.backends import cuda
from spikeseg.model.neuron.batch_norm_lif import normalize_and_fire
from spikeseg.model.neuron.integer_lif import IntegerLIF, integer_lif
from spikeseg.model.neuron.lif import lif
from spikeseg.model.neuron.reference import integer_backward, integer_forward

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu() -> None:
    require_gpu()


def test_a_second_stream_is_the_one_that_is_used() -> None:
    # The input is made late on the side stream: a launch elsewhere would read it too early.
    rule = firing_rule("published", dynamics="temporal")
    x = currents((2, 1 << 20), torch.float32, 8)
    g = torch.randn(x.shape)
    expected, inside, _ = integer_forward(x, rule)
    wanted, _ = integer_backward(g, inside, rule)
    stream = torch.cuda.Stream()
    source, gradient = x.cuda(), g.cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late = torch.zeros_like(source).copy_(source).requires_grad_()
        spikes = integer_lif(late, rule, backend="cuda")
        spikes.backward(gradient)
    stream.synchronize()
    assert late.grad is not None
    assert_same(spikes, expected)
    assert_same(late.grad, wanted)


def test_another_thread_has_its_own_stream() -> None:
    x = currents((1, 100_003), torch.float16, 8)
    results: list[torch.Tensor] = []

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            results.append(integer_lif(x.cuda(), firing_rule("published"), backend="cuda").cpu())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        assert_same(result, integer_forward(x, firing_rule("published"))[0])


@pytest.mark.parametrize("dynamics", ["stateless", "temporal"])
def test_a_training_step_is_captured_and_replayed(dynamics: str) -> None:
    rule = firing_rule("published", dynamics=dynamics)
    static = torch.zeros(2, 5003, device="cuda", requires_grad=True)
    g = torch.randn(2, 5003, device="cuda")

    def step() -> torch.Tensor:
        spikes = integer_lif(static, rule, backend="cuda")
        (gradient,) = torch.autograd.grad(spikes, static, g)
        return gradient

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for seed in range(3):
        x = currents((2, 5003), torch.float32, 8, seed=seed)
        with torch.no_grad():
            static.copy_(x)
        graph.replay()
        _, inside, _ = integer_forward(x, rule)
        assert_same(captured, integer_backward(g.cpu(), inside, rule)[0])


@pytest.fixture
def nothing_loaded() -> Iterator[None]:
    kept = dict(cuda._kernels)
    cuda._kernels.clear()
    yield
    cuda._kernels.update(kept)


@pytest.mark.usefixtures("nothing_loaded")
def test_a_kernel_that_is_not_loaded_is_refused_while_capturing() -> None:
    x = torch.zeros(1, 64, device="cuda")
    with (
        pytest.raises(RuntimeError, match="run the model once before"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        integer_lif(x, firing_rule("published"), backend="cuda")
    torch.cuda.synchronize()
    cuda.load_all(x.device, [torch.float32])
    assert_same(integer_lif(x, firing_rule("published"), backend="cuda"), torch.zeros(1, 64))


def test_a_new_shape_loads_nothing() -> None:
    integer_lif(torch.zeros(1, 64, device="cuda"), firing_rule("published"), backend="cuda")
    loaded = len(cuda._kernels)
    for size in (1, 77, 4096, 100_001):
        integer_lif(torch.zeros(1, size, device="cuda"), firing_rule("published"), backend="cuda")
    assert len(cuda._kernels) == loaded


def test_the_devices_of_others_are_left_as_they_were() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    x = currents((1, 999), torch.float32, 8)
    for index in range(torch.cuda.device_count()):
        spikes = integer_lif(x.to(f"cuda:{index}"), firing_rule("published"), backend="cuda")
        assert spikes.device.index == index
        assert torch.cuda.current_device() == 0
        assert_same(spikes, integer_forward(x, firing_rule("published"))[0])


@pytest.mark.parametrize("steps", [1, 2], ids=["stateless", "temporal"])
def test_more_than_two_to_the_31_elements(steps: int) -> None:
    n = 2**31 // steps + 11
    free, _ = torch.cuda.mem_get_info()
    if free < 11 * n * steps:
        pytest.skip(f"{free >> 30} GiB free, {11 * n * steps >> 30} needed")
    rule = firing_rule("published", dynamics="stateless" if steps == 1 else "temporal")
    # The last neurons are odd ones, all others alike.
    last = currents((steps, 500), torch.bfloat16, 8)
    last[:, 0] = 3.0
    x = torch.full((steps, n), 3.0, dtype=torch.bfloat16, device="cuda")
    x[:, -500:] = last.cuda()
    spikes = integer_lif(x.requires_grad_(), rule, backend="cuda")
    (gradient,) = torch.autograd.grad(spikes, x, torch.ones((), device="cuda").to(x).expand_as(x))
    expected, inside, _ = integer_forward(last, rule)
    wanted, _ = integer_backward(torch.ones_like(last), inside, rule)
    for actual, law in ((spikes.detach(), expected), (gradient, wanted)):
        assert_same(actual[:, -500:], law)
        for step, its in zip(actual[:, :-500], law[:, 0], strict=True):
            assert step.min() == its == step.max()


def test_forward_and_backward_allocate_spikes_gradient_and_bits_alone() -> None:
    x = torch.randn(1, 8 << 20, device="cuda", requires_grad=True)
    g = torch.randn_like(x)

    def step() -> None:
        spikes = integer_lif(x, firing_rule("published"), backend="cuda")
        torch.autograd.grad(spikes, x, g)

    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    used = torch.cuda.max_memory_allocated() - before
    assert used <= x.numel() * (4 + 4 + 0.14)


@pytest.mark.usefixtures("nothing_loaded")
def test_auto_takes_the_kernels() -> None:
    integer_lif(torch.randn(2, 64, device="cuda"), firing_rule("published"))
    assert "integer_forward" in {key[2] for key in cuda._kernels}


def test_compile_with_inductor_keeps_the_numbers() -> None:
    x = currents((2, 3, 4, 5, 6), torch.float32, 8).nan_to_num(0.0, 1.0, -1.0)

    def model(x: torch.Tensor) -> torch.Tensor:
        return lif(
            2 * integer_lif(x * 1.0, firing_rule("published"), backend="cuda"), threshold=0.5
        )

    on = x.cuda().requires_grad_()
    compiled = torch.compile(model, fullgraph=True)
    spikes = compiled(on)
    spikes.sum().backward()
    gradient = on.grad
    on.grad = None
    model(on).sum().backward()
    assert gradient is not None and on.grad is not None
    assert_same(spikes, model(on))
    torch.testing.assert_close(gradient, on.grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fused_layer_trains_like_two_layers(layout: torch.memory_format) -> None:
    norm = nn.BatchNorm2d(16).cuda()
    nn.init.uniform_(norm.weight, 1, 3)
    neuron = IntegerLIF(firing_rule("counts", divisor=4.0))
    images = torch.randn(6, 16, 9, 9, device="cuda").contiguous(memory_format=layout)
    g = torch.randn(2, 3, 16, 9, 9, device="cuda")
    gradients = []
    for fused in (True, False):
        x = images.detach().unflatten(0, (2, 3)).requires_grad_()
        if fused:
            spikes = normalize_and_fire(norm, neuron, x)
        else:
            spikes = neuron(norm(x.flatten(0, 1)).unflatten(0, (2, 3)))
        leaves = [x, norm.weight, norm.bias]
        gradients.append([spikes.detach(), *torch.autograd.grad(spikes, leaves, g)])
    differing = (gradients[0][0] != gradients[1][0]).float().mean()
    assert differing < 1e-3
    for ours, theirs in zip(gradients[0][1:], gradients[1][1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
