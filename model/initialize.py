"""Initial values with which every neuron fires and gradients stay finite, for new trainings.

The published initialization leaves layers silent: DCN masks are exactly 0, so that three BatchNorms
see constants and scale gradients by 1 / sqrt(eps) each; attention products fall below 0.5 where few
tokens meet. Functions here change initial values only, never the function or its parameters.
"""

import torch
from torch import Tensor, nn

from .decoder.deformable_conv import SpikeDeformableConv
from .decoder.mask_embedding import SpikeMLP

_TARGET = 1.0
_LARGEST_SHIFT = 2.0


@torch.no_grad()
def start_alive(model: nn.Module) -> None:
    """Give the silent parts of a new segmentor initial values that let them fire.

    DCN masks start near one spike instead of 0 with offsets of a quarter pixel; the mask
    embedding's linear layers keep unit variance for the spikes they see.

    Args:
        model: A segmentor fresh from its constructor; drawn from torch's global generator.
    """
    for module in model.modules():
        if isinstance(module, SpikeDeformableConv):
            for branch, weight, bias in ((module.offset, 0.25, 0.0), (module.mask, 1.0, 1.0)):
                conv, norm = branch[0], branch[1]
                assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                conv.reset_parameters()
                norm.weight.fill_(weight)
                norm.bias.fill_(bias)
        elif isinstance(module, SpikeMLP):
            for layer in (module.fc1, module.fc2):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


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
    found = {
        name: module
        for name, module in model.named_modules()
        if name.startswith(within)
        and all(hasattr(module, part) for part in ("q_conv", "k_conv", "v_conv", "attn_spike"))
    }
    if not found:
        return {}
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    model.train()
    measured: dict[str, float] = {}
    for _ in range(rounds):
        products, rates = _measure(model, found, images)
        for name, module in found.items():
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
            products[name] = float(args[0].mean()) / neuron.threshold  # pyright: ignore[reportArgumentType, reportOperatorIssue]

        def count(neuron: nn.Module, _: object, output: Tensor, name: str = name) -> None:
            counts[name].append(float(output.mean()) * neuron.divisor)  # pyright: ignore[reportArgumentType, reportOperatorIssue]

        handles.append(module.attn_spike.register_forward_pre_hook(product))  # pyright: ignore[reportAttributeAccessIssue]
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
    step = max(rate, 0.1) * (factor - 1)
    for part in ("q_conv", "k_conv", "v_conv"):
        norm = getattr(attention, part)[-1]
        norm.bias.add_(step).clamp_(-_LARGEST_SHIFT, _LARGEST_SHIFT)
