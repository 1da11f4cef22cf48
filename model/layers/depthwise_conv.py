"""Depthwise convolution whose weight's gradient is a product of matrices on the CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Pixels of a row that one column of the product holds; measured, see RESULTS.md.
_RUN = 16
# Smaller kernels are as fast in torch's own way.
_LEAST_KERNEL = 5


class DepthwiseConv2d(nn.Conv2d):
    """Convolution of every channel by itself that keeps the size, without bias.

    Args:
        channels: C in and out.
        kernel_size: Odd size of the square kernel.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=channels,
            bias=False,
        )
        self.by_product = kernel_size >= _LEAST_KERNEL
        """Whether the weight's gradient may be taken as a product of matrices."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B, C, H, W) to the same shape."""
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        plain = x.device.type == "cpu" and x.dtype == self.weight.dtype
        if learns and plain and self.by_product and not torch.is_autocast_enabled("cpu"):
            return _Depthwise.apply(x, self.weight)
        return super().forward(x)


class _Depthwise(torch.autograd.Function):
    """Torch's convolution forward and towards the input; the weight's gradient by a product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=weight.shape[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        to_input = None
        if ctx.needs_input_grad[0]:
            pad = [weight.shape[-1] // 2] * 2
            groups, outputs = weight.shape[0], [True, False, False]
            to_input = torch.ops.aten.convolution_backward(
                gradients[0], x, weight, None, [1, 1], pad, [1, 1], False, [0, 0], groups, outputs
            )[0]
        return to_input, _compute_weight_gradient(x, gradients[0], weight.shape[-1])


def _compute_weight_gradient(x: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    """dL/dw, (C, 1, k, k): for every shift (i, j) the sum over pixels of gradient times x there.

    A row is cut into runs of pixels. With the runs of the gradient as one matrix, and for each i
    the same runs of x widened by k - 1 as the other, their product holds the sums of every pair of
    places in a run; those at distance j are the diagonal j.
    """
    B, C, H, W = x.shape
    reach, runs = kernel_size // 2, -(-W // _RUN)
    fill, wide = runs * _RUN - W, _RUN + kernel_size - 1
    padded = F.pad(x, (reach, reach + fill, reach, reach)).contiguous().flatten()
    # Runs overlap by k - 1: the same memory read at steps of a run, then laid out for products.
    height, width = H + 2 * reach, W + fill + 2 * reach
    steps = (height * width, width, _RUN, 1)
    around = padded.as_strided((B * C, height, runs, wide), steps).reshape(B * C, -1, wide)
    gradient_runs = F.pad(gradient, (0, fill)).reshape(B * C, H * runs, _RUN)
    sums = torch.stack(
        [
            torch.bmm(around[:, i * runs : (i + H) * runs].transpose(1, 2), gradient_runs)
            for i in range(kernel_size)
        ],
        1,
    )
    # Place p of the gradient meets place p + j of x.
    steps = (*sums.stride()[:3], sums.stride(2) + sums.stride(3))
    diagonals = sums.as_strided((B * C, kernel_size, kernel_size, _RUN), steps).sum(-1)
    return diagonals.view(B, C, 1, kernel_size, kernel_size).sum(0)
