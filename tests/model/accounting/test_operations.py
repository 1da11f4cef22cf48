"""Synaptic operations against a simulator that sends every spike by itself."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from models import small_config
from torch import Tensor, nn

from spikeseg.model.accounting.operations import LayerOperations, OperationMeter
from spikeseg.model.config import QueryDecoderConfig
from spikeseg.model.decoder.deformable_conv import SpikeDeformableConv
from spikeseg.model.decoder.mask_product import mask_product
from spikeseg.model.layers.blocks import linear_attention
from spikeseg.model.neuron.firing_rule import FiringRule
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.segmentor import build_uncalibrated_segmentor

T, B, LEVELS = 2, 3, 5
CODINGS: dict[str, Callable[[int], int]] = {
    "values": lambda count: int(count > 0),
    "unary": lambda count: count,
    "bitwise": lambda count: count.bit_count(),
}


class Net(nn.Module):
    """Neurons, then whatever is to be counted; images only say T and B."""

    def __init__(self, run: Callable[..., Tensor], neurons: int, divisor: float) -> None:
        super().__init__()
        self.neurons = nn.ModuleList(
            IntegerLIF(FiringRule(levels=LEVELS, divisor=divisor)) for _ in range(neurons)
        )
        self.layer = run if isinstance(run, nn.Module) else None
        self._run = run
        self.currents: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        spikes = [
            neuron(x) if x is not None else x
            for neuron, x in zip(self.neurons, self.currents, strict=True)
        ]
        return self._run(*spikes)


def draw(*shape: int) -> Tensor:
    return torch.randint(-3, LEVELS + 3, shape).float()


def count(
    run: Callable[..., Tensor], *currents: Tensor, divisor: float = 5.0
) -> tuple[LayerOperations, list[Tensor], Tensor]:
    """The row of a product, the spike counts that it read, and sums (B, 3) of each image."""
    net = Net(run, len(currents), divisor)
    net.currents = list(currents)
    image = torch.zeros(T, B, 3, 2, 2)
    with torch.inference_mode(), OperationMeter(net) as meter:
        net(image)
    counts = [x.clamp(0, LEVELS).round().long() for x in currents]
    skipped = ("neuron", "normalization", "addition", "scaling")
    (row,) = [row for row in meter.rows() if row.kind not in skipped]
    keys, sums = meter.sums()
    return row, counts, sums[:, keys.index((row.name, row.kind)), :3]


def assert_equal(sums: Tensor, simulated: dict[str, list[int]]) -> None:
    for index, coding in enumerate(CODINGS):
        assert sums[:, index].tolist() == simulated[coding], coding
    assert len({tuple(numbers) for numbers in simulated.values()}) == len(CODINGS)


CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)},
    {"kernel_size": 5, "padding": 2, "groups": 4},
    {"kernel_size": 1, "groups": 2},
    {"kernel_size": 2, "stride": 3},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("divisor", [5.0, 3.0])
def test_a_convolution_costs_what_its_events_cost(options: dict[str, Any], divisor: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, **options)
    row, (counts,), sums = count(
        nn.Sequential(nn.Flatten(0, 1), layer), draw(T, B, 4, 6, 5), divisor=divisor
    )
    height, width = layer(torch.zeros(1, 4, 6, 5)).shape[2:]
    padding: Any = layer.padding
    simulated = {coding: [0] * B for coding in CODINGS}
    for t, b, c, y, x in product(*map(range, counts.shape)):
        number = int(counts[t, b, c, y, x])
        reached = 0
        for i, j in product(range(layer.kernel_size[0]), range(layer.kernel_size[1])):
            # Output o reads input o * stride - padding + tap * dilation.
            for oy, ox in product(range(height), range(width)):
                iy = oy * layer.stride[0] - padding[0] + i * layer.dilation[0]
                ix = ox * layer.stride[1] - padding[1] + j * layer.dilation[1]
                reached += (iy, ix) == (y, x)
        for coding, slots in CODINGS.items():
            simulated[coding][b] += slots(number) * reached * (8 // layer.groups)
    assert_equal(sums, simulated)
    assert row.operands == 1
    assert row.rate == pytest.approx(float(counts.float().mean()))
    assert row.macs == height * width * T * layer.weight.numel()


def test_a_convolution_of_positions_costs_what_its_events_cost() -> None:
    torch.manual_seed(1)
    layer = nn.Conv1d(3, 5, 2, stride=2, padding=1)
    _, (counts,), sums = count(nn.Sequential(nn.Flatten(0, 1), layer), draw(T, B, 3, 7))
    simulated = {coding: [0] * B for coding in CODINGS}
    for t, b, c, x in product(*map(range, counts.shape)):
        reached = sum(2 * o - 1 + i == x for o, i in product(range(4), range(2)))
        for coding, slots in CODINGS.items():
            simulated[coding][b] += slots(int(counts[t, b, c, x])) * reached * 5
    assert_equal(sums, simulated)


def test_a_linear_layer_costs_what_its_events_cost() -> None:
    torch.manual_seed(2)
    _, (counts,), sums = count(nn.Linear(6, 7), draw(T, B, 4, 6))
    simulated = {
        coding: [sum(7 * slots(int(n)) for n in counts[:, b].flatten()) for b in range(B)]
        for coding, slots in CODINGS.items()
    }
    assert_equal(sums, simulated)


def test_a_product_of_spikes_costs_an_accumulate_for_each_pair_of_slots() -> None:
    torch.manual_seed(3)
    _, (a, b), sums = count(torch.matmul, draw(T, B, 2, 3, 4), draw(T, B, 2, 4, 5))
    simulated = {coding: [0] * B for coding in CODINGS}
    for t, image, head, i, j, k in product(range(T), range(B), range(2), *map(range, (3, 5, 4))):
        left, right = int(a[t, image, head, i, k]), int(b[t, image, head, k, j])
        for coding, slots in CODINGS.items():
            simulated[coding][image] += slots(left) * slots(right)
    assert_equal(sums, simulated)


@pytest.mark.parametrize("order", ["scores_first", "values_first"])
def test_attention_costs_what_its_events_cost(order: Any) -> None:
    torch.manual_seed(4)
    heads = 2
    net = Net(
        lambda q, k, v: linear_attention(q, k, v, num_heads=heads, scale=0.5, order=order), 3, 5.0
    )
    q, k, v = (draw(T, B, 4, n) for n in (3, 6, 6))
    net.currents = [q, k, v]
    with torch.inference_mode(), OperationMeter(net) as meter:
        net(torch.zeros(T, B, 3, 2, 2))
    first, second = [row for row in meter.rows() if row.kind == "product"]
    q, k, v = (x.clamp(0, LEVELS).unflatten(2, (heads, -1)) for x in (q, k, v))
    pair = {"scores_first": (k, q), "values_first": (k, v)}[order]
    single, fan_out = {"scores_first": (v, 3), "values_first": (q, 2)}[order]
    if order == "scores_first":
        both = torch.einsum("tbhcn,tbhcm->", pair[0], pair[1])
    else:
        both = torch.einsum("tbhcn,tbhdn->", pair[0], pair[1])
    assert (first.operands, second.operands) == (2, 1)
    assert first.unary * B == float(both)
    assert second.unary * B == float(single.sum()) * fan_out


@pytest.mark.parametrize("spiking", ["embeddings", "features"])
def test_the_mask_product_costs_what_its_events_cost(spiking: str) -> None:
    torch.manual_seed(5)
    layers, queries, width, size = 2, 4, 3, (2, 5)
    real = {
        "embeddings": torch.randn(T, B, width, *size),
        "features": torch.randn(T, layers, B, queries, width),
    }[spiking]
    if spiking == "embeddings":
        row, (counts,), sums = count(
            lambda s: mask_product(2.0 * s, real), draw(T, layers, B, queries, width)
        )
        per_image, fan_out = counts.transpose(0, 2), size[0] * size[1]
    else:
        row, (counts,), sums = count(lambda s: mask_product(real, s), draw(T, B, width, *size))
        per_image, fan_out = counts.transpose(0, 1), layers * queries
    simulated = {
        coding: [sum(slots(int(n)) for n in image.flatten()) * fan_out for image in per_image]
        for coding, slots in CODINGS.items()
    }
    assert_equal(sums, simulated)
    assert row.macs == T * layers * queries * width * size[0] * size[1]


def test_deformable_sampling_reads_where_its_modulation_fires() -> None:
    torch.manual_seed(6)
    config = small_config()
    sizes = QueryDecoderConfig(width=8, num_heads=2, num_groups=4, num_queries=4)
    neuron = IntegerLIF.from_config(config.neuron)

    def make() -> IntegerLIF:
        return IntegerLIF.from_config(config.neuron)

    layer = SpikeDeformableConv(sizes, neuron=make, compat="corrected").eval()
    nn.init.normal_(layer.mask[1].bias, std=3.0)
    seen: list[Tensor] = []
    layer.mask_spike.register_forward_hook(lambda m, _, out: seen.append(out * m.divisor))
    net = Net(layer, 1, neuron.divisor)
    net.neurons[0] = nn.Identity()
    net.currents = [2 * torch.randn(T, B, 8, 4, 3)]
    with torch.inference_mode(), OperationMeter(net) as meter:
        net(torch.zeros(T, B, 3, 2, 2))
    rows = {row.kind: row for row in meter.rows() if row.kind in ("sampling", "modulation")}
    counts = seen[0].round()
    channels = 8 // 4
    assert 0 < rows["modulation"].unary < rows["modulation"].macs * LEVELS
    assert rows["modulation"].unary * B == float(counts.sum()) * channels
    assert rows["modulation"].values * B == float((counts > 0).sum()) * channels
    # Four neighbours of each value that is read.
    assert rows["sampling"].unary * B == float((counts > 0).sum()) * channels * 4
    assert rows["sampling"].macs * B == counts.numel() * channels * 4


def test_operations_of_a_whole_network_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(7)
    model = build_uncalibrated_segmentor(small_config())
    images = torch.randn(3, 3, 48, 48)
    model(images)
    model = model.eval().double()
    images = images.double()
    with torch.inference_mode(), OperationMeter(model) as together:
        model(images)
    with torch.inference_mode(), OperationMeter(model, keep_maps=True) as apart:
        for image in images:
            model(image[None])
    (keys, sums), (same_keys, singles) = together.sums(), apart.sums()
    assert keys == same_keys
    assert torch.equal(sums, singles)
    spatial = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    in_space = sum(row.unary for row in apart.rows() if row.name in spatial)
    mapped = torch.stack([item.sum() for item in apart.maps]).mean()
    assert in_space > 0
    assert float(mapped) == pytest.approx(in_space)


class Prepared(nn.Module):
    """Works on the image before any neuron: a factor, a constant added, two images added."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image * 2.0 + self.shift) + image * image + self.shift * self.shift


def test_what_is_done_to_the_image_before_a_neuron_is_counted() -> None:
    image = torch.rand(2, 3, 4, 5)
    net = Prepared()
    with torch.inference_mode(), OperationMeter(net) as meter:
        for _ in range(2):
            net(image)
    values = 3 * 4 * 5
    # A constant times a constant is known before; adding one is work for every image.
    assert {row.kind: row.macs for row in meter.rows()} == {
        "scaling": values,
        "addition": 3 * values,
        "elementwise": values,
    }


class Pooled(nn.Module):
    """The mean and the sum of an image over its places."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean((2, 3)) + image.sum((2, 3))


def test_a_mean_adds_all_values_and_scales_each_result_once() -> None:
    net = Pooled()
    with torch.inference_mode(), OperationMeter(net) as meter:
        net(torch.rand(2, 3, 4, 5))
    # 60 values to 3, twice, and the two results together.
    assert {row.kind: row.macs for row in meter.rows()} == {
        "addition": 2 * (60 - 3) + 3,
        "scaling": 3,
    }
