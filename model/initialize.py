"""Initial values with which every neuron fires and gradients stay finite, for new trainings.

The published initialization leaves layers silent: DCN masks are exactly 0, so that three BatchNorms
see constants and scale gradients by 1 / sqrt(eps) each; attention products fall below 0.5 where few
tokens meet. Functions here change initial values only, never the function or its parameters.
"""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false, reportOperatorIssue=false

import torch
from torch import Tensor, nn

from .decoder.deformable_conv import SpikeDeformableConv
from .decoder.mask_embedding import MaskEmbedding
from .decoder.pixel_decoder import PixelDecoder
from .neuron.kinds import find_neurons

_TARGET = 1.0
_LARGEST_SHIFT = 3.0
# D, divisor and alpha at which all scales below are 1.
_USUAL = 4.0
_PROJECTIONS = ("q", "k", "v")


@torch.no_grad()
def start_alive(model: nn.Module) -> None:
    """Set initial values of a new segmentor with which every part fires.

    BatchNorms and embeddings start in units of the threshold, and narrower where D is less than 4:
    of a unit normal so much lies outside the window that every layer would pass on more gradient
    than it gets. DCN masks start near one spike instead of 0 with offsets of a quarter pixel.
    Where no BatchNorm takes a divisor out again, weights or BatchNorms before the neuron do.

    Args:
        model: A segmentor fresh from its constructor; drawn from torch's global generator.
    """
    for part in model.children():
        _, neuron = find_neurons(part)[0]
        scale = neuron.threshold * min(1.0, 0.5 + 0.15 * neuron.levels)
        for module in part.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.Embedding):
                module.weight.mul_(scale)
        for module in part.modules():
            if isinstance(module, SpikeDeformableConv):
                _start_deformable(module, scale)
            elif hasattr(module, "attn_spike"):
                _start_attention(module)
    parts = {type(module): module for module in model.modules()}
    if MaskEmbedding in parts:
        _start_masks(parts[MaskEmbedding], parts[PixelDecoder])


@torch.no_grad()
def calibrate_norms(model: nn.Module, images: torch.Tensor) -> None:
    """Set running statistics of all BatchNorms to those of some images, as a training would.

    Networks of drawn weights fire after it as trained ones do. Weights stay; momenta and the mode
    are put back.

    Args:
        model: A segmentor.
        images: (B, C, H, W), normalized.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    was_training = model.training
    model.train()
    for norm in norms:
        norm.momentum = 1.0
    model(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    model.train(was_training)


def _start_deformable(module: SpikeDeformableConv, scale: float) -> None:
    for branch, weight, bias in ((module.offset, 0.25, 0.0), (module.mask, scale, scale)):
        conv, norm = branch[0], branch[1]
        conv.reset_parameters()
        norm.weight.fill_(weight)
        norm.bias.fill_(bias)
    values = [part for part in module.input_proj.modules() if isinstance(part, nn.BatchNorm2d)]
    values[-1].weight.mul_(module.mask_spike.divisor / _USUAL)


def _start_attention(module: nn.Module) -> None:
    """Widen projections by what the divisor takes from each of the product's three factors."""
    for name in _PROJECTIONS:
        neuron = getattr(module, f"{name}_spike")
        used = min(float(neuron.levels), neuron.divisor)
        getattr(module, f"{name}_conv")[-1].weight.mul_(max(1.0, used / _USUAL))


def _start_masks(embedding: MaskEmbedding, pixels: PixelDecoder) -> None:
    """Scale linear layers to unit variance for their spikes, and masks to one size.

    The last layer stays small beside a shortcut, whose spikes reach the threshold alone.
    """
    mlp, alpha = embedding.mask_embed, embedding.alpha
    layers = [
        (mlp.fc1, embedding.query_spike, mlp.fc1_spike),
        (mlp.fc2, mlp.fc1_spike, mlp.fc2_spike),
    ]
    if embedding.shortcut == "none":
        layers.append((mlp.fc_out, mlp.fc2_spike, embedding.mask_spike))
    for layer, before, after in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layer.weight.mul_(after.threshold * before.divisor / alpha)
    if embedding.shortcut == "identity":
        embedding.w.mul_(embedding.mask_spike.threshold * embedding.shortcut_spike.divisor / alpha)
    of_embedding = embedding.mask_spike.divisor / alpha
    of_pixels = pixels.mask_feature_spike.divisor / _USUAL
    pixels.mask_feature.weight.mul_(of_embedding * of_pixels)


@torch.no_grad()
def calibrate_attention(
    model: nn.Module, images: Tensor, *, rounds: int = 8, within: str = ""
) -> dict[str, float]:
    """Shift the BatchNorms before queries, keys and values until every attention neuron fires.

    The product of three spike tensors grows with the cube of their rate and with the number of
    tokens; a shift of all three means brings its mean near the threshold.

    Args:
        model: A new segmentor; its running statistics and mode are left as they were.
        images: One micro-batch, (B, 3, H, W), normalized.
        rounds: Forward passes; later layers follow the earlier ones.
        within: Start of the names of the attentions that are shifted.

    Returns:
        Attention's name -> mean of its product at the end, in units of the threshold.
    """
    attentions = {
        name: module
        for name, module in model.named_modules()
        if name.startswith(within)
        and all(hasattr(module, part) for part in ("q_conv", "k_conv", "v_conv", "attn_spike"))
    }
    if not attentions:
        return {}
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    model.train()
    measured: dict[str, float] = {}
    for _ in range(rounds):
        products, rates = _measure(model, attentions, images)
        for name, module in attentions.items():
            measured[name] = products[name]
            _shift(module, products[name], rates[name])
    for name, buffer in model.named_buffers():
        buffer.copy_(statistics[name])
    model.train(was_training)
    return measured


def _measure(
    model: nn.Module, attentions: dict[str, nn.Module], images: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean product and mean spike count of queries, keys and values, per attention."""
    products: dict[str, float] = {}
    counts: dict[str, list[float]] = {name: [] for name in attentions}
    handles = []
    for name, module in attentions.items():

        def product(neuron: nn.Module, args: tuple[Tensor], name: str = name) -> None:
            products[name] = float(args[0].mean()) / neuron.threshold

        def count(neuron: nn.Module, _: object, output: Tensor, name: str = name) -> None:
            counts[name].append(float(output.mean()) * neuron.divisor)

        handles.append(module.attn_spike.register_forward_pre_hook(product))
        handles += [
            getattr(module, part).register_forward_hook(count)
            for part in ("q_spike", "k_spike", "v_spike")
        ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return products, {name: sum(values) / len(values) for name, values in counts.items()}


def _shift(attention: nn.Module, product: float, rate: float) -> None:
    factor = min(2.0, max(0.5, (_TARGET / max(product, 1e-6)) ** (1 / 3)))
    step = max(rate, 0.1) * (factor - 1) * attention.attn_spike.threshold
    for name in _PROJECTIONS:
        norm = getattr(attention, f"{name}_conv")[-1]
        # In units of the BatchNorm, which are equal at the start.
        largest = _LARGEST_SHIFT * float(norm.weight[0])
        norm.bias.add_(step).clamp_(-largest, largest)
