"""BatchNorm and the integer neuron behind it as one op, for training: nothing between is stored."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .backends import operators
from .backends.dispatch import choose_backend
from .constraints import require
from .integer_lif import IntegerLIF

# Adds a tensor over the workers, in place or not, and returns the sum.
Reduce = Callable[[Tensor], Tensor]


class _NormInteger(torch.autograd.Function):
    """Spikes of normalized values; backward folds the neuron into BatchNorm's two passes."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: float | Tensor,
        eps: float,
        rule: tuple[int, float, float, bool, bool],
        backend: str,
        reduce: Reduce | None,
    ) -> Tensor:
        per_deviation = torch.rsqrt(variance + eps)
        gain = weight.to(mean) * per_deviation
        spikes, window = operators.norm_integer(x, mean, gain, bias.to(mean), *rule, True, backend)
        ctx.save_for_backward(x, window, mean, gain, per_deviation)
        ctx.count, ctx.rule, ctx.backend, ctx.reduce = count, rule, backend, reduce
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, window, mean, gain, per_deviation = ctx.saved_tensors
        _, divisor, threshold, _, _ = ctx.rule
        tail = (divisor, threshold, ctx.backend)
        own = operators.norm_integer_sums(gradients[0], x, window, mean, *tail)
        # dL/dx needs the sums of all workers, a parameter's gradient those of this one.
        level, slope = (own if ctx.reduce is None else ctx.reduce(own.clone())) / ctx.count
        result = operators.norm_integer_backward(
            gradients[0], x, window, mean, gain, level, slope * per_deviation.square(), *tail
        )
        return result, own[1] * per_deviation, own[0], *(None,) * 7


def batch_norm_integer_lif(  # noqa: PLR0913
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    levels: int,
    divisor: float,
    threshold: float = 1.0,
    rounding: Literal["half_even", "half_up"] = "half_even",
    window: Literal["closed", "open"] = "closed",
    backend: Literal["auto", "torch", "cuda"] = "auto",
    reduce: Reduce | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Stateless integer neurons on BatchNorm in training.

    y = (x - mean) weight / sqrt(variance + eps) + bias per channel; spikes as `integer_lif` of y.
    y is never rounded to x's type, so that 16-bit results can differ from those of two layers.

    Args:
        x: (N, C, ...), N being T times B.
        weight: (C,).
        bias: (C,).
        eps: Added to the variance.
        levels: D.
        divisor: What the spike count is divided by.
        threshold: Value of y that is one spike.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1.
        backend: Which implementation.
        reduce: Sums a tensor over the workers, where statistics are those of all of them.

    Returns:
        Normalized spikes of x's shape; mean and biased variance of each channel, (C,).

    Raises:
        ValueError: Where a channel has no more than one value, or weight and bias are not of
            its channels and device, or a number or a word is not one that `constraints.py` allows.
        RuntimeError: Where a named backend cannot run; on differentiating twice.

    Source: NI-LIF behind Ioffe and Szegedy (2015), whose gradient is that of their section 3:
    dL/dx = gain (d - mean(d) - (x - mean) mean(d (x - mean)) / variance), d = dL/dy.
    """
    require(eps=eps, levels=levels, divisor=divisor, threshold=threshold)
    require(rounding=rounding, window=window)
    for name, values in (("weight", weight), ("bias", bias)):
        # The kernels read one value a channel, whatever there is.
        if values.shape != x.shape[1:2] or values.device != x.device:
            raise ValueError(
                f"{name} must be one value for each of {x.shape[1]} channels on {x.device}, got "
                f"shape {tuple(values.shape)} on {values.device}"
            )
    count: float | Tensor = x.numel() / max(1, x.shape[1])
    if reduce is None and count <= 1:
        raise ValueError(f"a channel must have more than one value in training, got {count:g}")
    mean, variance = operators.norm_statistics(x.detach())
    if reduce is not None:
        # The count stays on the device: no wait for it.
        mean, variance, count = _over_workers(mean, variance, count, reduce)
    rule = (levels, float(divisor), float(threshold), rounding == "half_up", window == "open")
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        spikes = _NormInteger.apply(
            x, weight, bias, mean, variance, count, eps, rule, backend, reduce
        )
    else:
        gain = weight.to(mean) * torch.rsqrt(variance + eps)
        spikes, _ = operators.norm_integer(x, mean, gain, bias.to(mean), *rule, False, backend)
    return spikes, mean, variance


def _over_workers(
    mean: Tensor, variance: Tensor, count: float, reduce: Reduce
) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics of all workers' values; sums in float64, so that the square does not cancel."""
    wide = mean.double()
    own = torch.cat([wide.new_full((1,), count), wide * count, (variance + wide.square()) * count])
    total = reduce(own)
    center, square = (total[1:] / total[0]).chunk(2)
    return center.to(mean), (square - center.square()).clamp_(min=0).to(mean), total[0].to(mean)


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
        and neuron.dynamics == "stateless"
        and _on_kernels(neuron.backend, x.device.type, x.dtype)
    )
    if not fused:
        return neuron(norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
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
        backend=neuron.backend,
    )
    _advance(norm, mean, variance, x.numel() / x.shape[2])
    return spikes.unflatten(0, x.shape[:2])


@torch.compiler.assume_constant_result
def _on_kernels(wanted: str, device_type: str, dtype: torch.dtype) -> bool:
    """The choice of backend, which `torch.compile` cannot trace since it is logged."""
    return choose_backend(wanted, device_type, dtype) == "cuda"


@torch.no_grad()
def _advance(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: float) -> None:
    """Move the running statistics by `momentum` (None: all batches alike); variance unbiased."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var), share)
