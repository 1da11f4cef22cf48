"""RepConv: a linear chain that folds into one dense 3x3 convolution for inference."""

import torch
from torch import Tensor, nn


class BatchNormAndPad(nn.Module):
    """BatchNorm, then a one-pixel border of the value that a zero input would take.

    The value comes from the running statistics (after this batch's update in train mode) and
    carries no gradient, as in the released code (ARCHITECTURE section 12).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H + 2, W + 2)."""
        y = self.bn(x)
        bn = self.bn
        assert bn.running_mean is not None and bn.running_var is not None
        with torch.no_grad():
            border = bn.bias - bn.running_mean * bn.weight / torch.sqrt(bn.running_var + bn.eps)
        B, C, H, W = y.shape
        padded = torch.empty(
            (B, C, H + 2, W + 2),
            dtype=y.dtype,
            device=y.device,
            memory_format=torch.channels_last,
        )
        edge = border.to(y.dtype).view(1, C, 1, 1)
        padded[:, :, 0], padded[:, :, -1] = edge[..., 0], edge[..., 0]
        padded[:, :, :, 0], padded[:, :, :, -1] = edge[..., 0], edge[..., 0]
        padded[:, :, 1:-1, 1:-1] = y
        return padded


class RepConv(nn.Module):
    """1x1, BatchNorm with border, depthwise 3x3, 1x1, BatchNorm; linear in eval mode.

    Args:
        in_channels: C.
        out_channels: C'.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 1, bias=False),
            BatchNormAndPad(in_channels),
            nn.Sequential(
                nn.Conv2d(in_channels, in_channels, 3, groups=in_channels, bias=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H, W)."""
        return self.body(x)
