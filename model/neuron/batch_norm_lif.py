"""BatchNorm and the integer neuron behind it as one op, for training: nothing between is stored."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from .backends import operators
from .backends.dispatch import choose_backend
from .constraints import require
from .firing_rule import FiringRule
from .integer_lif import IntegerLIF


class _NormInteger(torch.autograd.Function):
    """Spikes of normalized values; backward folds the neuron into BatchNorm's two passes."""

    @staticmethod
    def forward(  # noqa: PLR0913 - autograd follows no tensor that stands in a tuple
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: tuple[Tensor, Tensor],
        eps: float,
        rule: FiringRule,
        backend: str,
    ) -> Tensor:
        mean, variance = statistics
        per_deviation = torch.rsqrt(variance + eps)
        gain = weight.to(mean) * per_deviation
        spikes, window = operators.norm_integer(x, mean, gain, bias.to(mean), rule, True, backend)
        ctx.save_for_backward(x, window, mean, gain, per_deviation)
        ctx.rule, ctx.backend = rule, backend
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, window, mean, gain, per_deviation = ctx.saved_tensors
        rule, backend = ctx.rule, ctx.backend
        sums = operators.norm_integer_sums(gradients[0], x, window, mean, rule, backend)
        level, slope = sums / (x.numel() / x.shape[1])
        channels = [mean, gain, level, slope * per_deviation.square()]
        result = operators.norm_integer_backward(gradients[0], x, window, channels, rule, backend)
        return result, sums[1] * per_deviation, sums[0], *(None,) * 4


def batch_norm_integer_lif(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    rule: FiringRule,
    *,
    eps: float,
    backend: Literal["auto", "torch", "cuda"] = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Stateless integer neurons on BatchNorm in training.

    y = (x - mean) weight / sqrt(variance + eps) + bias per channel; spikes as `integer_lif` of y.
    y is never rounded to x's type, so that 16-bit results can differ from those of two layers.

    Args:
        x: (N, C, ...), N being T times B.
        weight: (C,).
        bias: (C,).
        rule: Of the neurons; its threshold is a value of y.
        eps: Added to the variance.
        backend: Which implementation.

    Returns:
        Normalized spikes of x's shape; mean and biased variance of each channel, (C,).

    Raises:
        ValueError: Where a channel has no more than one value, or weight and bias are not of
            its channels and device, or a number or a word is not one that `constraints.py` allows.
        RuntimeError: Where a named backend cannot run; on differentiating twice.

    Source: NI-LIF behind Ioffe and Szegedy (2015), whose gradient is that of their section 3:
    dL/dx = gain (d - mean(d) - (x - mean) mean(d (x - mean)) / variance), d = dL/dy.
    """
    require(eps=eps)
    rule = rule.checked()
    for name, values in (("weight", weight), ("bias", bias)):
        # The kernels read one value a channel, whatever there is.
        if values.shape != x.shape[1:2] or values.device != x.device:
            raise ValueError(
                f"{name} must be one value for each of {x.shape[1]} channels on {x.device}, got "
                f"shape {tuple(values.shape)} on {values.device}"
            )
    count = x.numel() / max(1, x.shape[1])
    if count <= 1:
        raise ValueError(f"a channel must have more than one value in training, got {count:g}")
    mean, variance = operators.norm_statistics(x.detach())
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        spikes = _NormInteger.apply(x, weight, bias, (mean, variance), eps, rule, backend)
    else:
        gain = weight.to(mean) * torch.rsqrt(variance + eps)
        spikes, _ = operators.norm_integer(x, mean, gain, bias.to(mean), rule, False, backend)
    return spikes, mean, variance


def normalize_and_fire(norm: nn.BatchNorm2d, neuron: IntegerLIF, x: Tensor) -> Tensor:
    """`neuron(norm(x))`, in one op where that is faster: in training, on the CUDA kernels.

    Forward hooks of the two modules do not run then.

    Args:
        norm: Its running statistics advance as in its own forward pass. A subclass (one that
            synchronizes, say) is called as it is.
        neuron: What its output goes to, and nothing else does.
        x: (T, B, C, H, W).

    Returns:
        Normalized spikes, (T, B, C, H, W).
    """
    fused = (
        norm.training
        and type(norm) is nn.BatchNorm2d
        and norm.affine
        and neuron.rule.dynamics == "stateless"
        and _runs_on_kernels(neuron.backend, x.device.type, x.dtype)
    )
    if not fused:
        return neuron(norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
    spikes, mean, variance = batch_norm_integer_lif(
        x.flatten(0, 1),
        norm.weight,
        norm.bias,
        neuron.rule,
        eps=norm.eps,
        backend=neuron.backend,
    )
    _advance_statistics(norm, mean, variance, x.numel() / x.shape[2])
    return spikes.unflatten(0, x.shape[:2])


@torch.compiler.assume_constant_result
def _runs_on_kernels(backend: str, device_type: str, dtype: torch.dtype) -> bool:
    """Whether the CUDA kernels run; outside of `torch.compile`'s trace, since it logs."""
    return choose_backend(backend, device_type, dtype) == "cuda"


@torch.no_grad()
def _advance_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: float) -> None:
    """Move the running statistics by `momentum` (None: all batches alike); variance unbiased."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var), share)
