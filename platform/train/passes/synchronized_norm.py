"""BatchNorm over the images of all workers: one reduction of ours, on any device and backend."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...cluster.worker_group import WorkerGroup


class SynchronizedBatchNorm(_BatchNorm):
    """BatchNorm whose statistics in training are those of every worker's images together.

    torch's SyncBatchNorm refuses the CPU. In eval mode, and for its parameters and buffers, it is
    the layer that it was made of.

    Attributes:
        group: The workers; all of them must run the same layers in the same order.
    """

    group: WorkerGroup

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (torch names it so)
        """Any (B, C, ...): the layer it was made of is BatchNorm1d or 2d."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalize (B, C, ...), B of this worker; running statistics advance as in BatchNorm.

        Raises:
            ValueError: Where a channel has no more than one value over all workers.
        """
        if not self.training:
            return super().forward(x)
        statistics = _statistics(x.detach(), self.group)
        mean, variance, count, _ = statistics
        if count <= 1:
            raise ValueError(f"a channel must have more than one value in training, got {count:g}")
        y = _Normalize.apply(x, self.weight, self.bias, statistics, self.eps)
        with torch.no_grad():
            if self.running_mean is not None and self.running_var is not None:
                assert self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                momentum = self.momentum
                weight = 1 / float(self.num_batches_tracked) if momentum is None else momentum
                self.running_mean.lerp_(mean.to(self.running_mean), weight)
                unbiased = variance * (count / (count - 1))
                self.running_var.lerp_(unbiased.to(self.running_var), weight)
        return y


def synchronize(model: nn.Module, group: WorkerGroup) -> None:
    """Make every BatchNorm of a model a `SynchronizedBatchNorm`, in place."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SynchronizedBatchNorm
            cast("SynchronizedBatchNorm", module).group = group


class _Statistics(NamedTuple):
    """Of each channel over all workers' images.

    Attributes:
        mean: (C,) float64.
        variance: Biased, (C,) float64.
        size: Values of a channel.
        group: The workers.
    """

    mean: Tensor
    variance: Tensor
    size: float
    group: WorkerGroup


class _Normalize(torch.autograd.Function):
    """(x - mean) / deviation x weight + bias; the statistics' own gradient is in its backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, statistics: _Statistics, eps: float
    ) -> Tensor:
        deviation = torch.rsqrt(statistics.variance + eps)
        mean, deviation = statistics.mean.to(weight.dtype), deviation.to(weight.dtype)
        normal = (x.to(weight.dtype) - _per_channel(mean, x)) * _per_channel(deviation, x)
        ctx.save_for_backward(normal, weight, deviation)
        ctx.size, ctx.group = statistics.size, statistics.group
        return torch.addcmul(_per_channel(bias, x), normal, _per_channel(weight, x)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        normal, weight, deviation = ctx.saved_tensors
        wide = gradient.to(weight.dtype)
        sums = torch.stack(
            [wide.sum(_reduced_axes(wide)), (wide * normal).sum(_reduced_axes(wide))]
        )
        # dL/dx needs the sums of all workers, a parameter's gradient those of this one.
        total = sums.double()
        ctx.group.sum(total)
        level, slope = (total / ctx.size).to(weight.dtype)
        result = torch.addcmul(
            wide - _per_channel(level, wide), normal, _per_channel(slope, wide), value=-1
        )
        result = result * _per_channel(weight * deviation, wide)
        return result.to(gradient.dtype), sums[1], sums[0], None, None


def _statistics(x: Tensor, group: WorkerGroup) -> _Statistics:
    """Reduce the statistics of each channel over all workers, in one sum."""
    count = x.numel() / max(1, x.shape[1])
    variance, mean = torch.var_mean(
        x.float() if x.dtype.itemsize < 4 else x, _reduced_axes(x), False
    )
    wide = mean.double()
    # Sums in float64, so that the square does not cancel.
    squares = variance.double() + wide.square()
    total = torch.cat([wide.new_full((1,), count), wide * count, squares * count])
    group.sum(total)
    center, square = (total[1:] / total[0]).chunk(2)
    variance = (square - center.square()).clamp_(min=0)
    return _Statistics(center, variance, float(total[0]), group)


def _reduced_axes(x: Tensor) -> list[int]:
    """Every axis but the channels'."""
    return [axis for axis in range(x.dim()) if axis != 1]


def _per_channel(channels: Tensor, x: Tensor) -> Tensor:
    """(C,) against (B, C, ...)."""
    return channels.view(-1, *(1,) * (x.dim() - 2))
