"""The depthwise convolution's gradients are torch's, whatever size, layout and batch."""

import pytest
import torch
from torch import nn

from spikeseg.model.layers.depthwise_conv import DepthwiseConv2d


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (4, 3), (5, 16), (9, 17), (20, 33)])
def test_gradients_are_those_of_torchs_convolution(
    size: tuple[int, int], kernel: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours = DepthwiseConv2d(6, kernel).double()
    theirs = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, *size, dtype=torch.float64).to(memory_format=layout)
    cotangent = torch.randn(3, 6, *size, dtype=torch.float64)
    results = []
    for module in (ours, theirs):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = module(given)
        (y * cotangent).sum().backward()
        results.append((y.detach(), given.grad, module.weight.grad))
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


def test_an_input_without_gradient_and_autocast_are_fine() -> None:
    conv = DepthwiseConv2d(4, 5)
    x = torch.randn(1, 4, 8, 8)
    conv(x).sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.any()
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
