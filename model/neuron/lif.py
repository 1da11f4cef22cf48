"""The binary LIF neuron of the SDT-V2 ImageNet checkpoints."""

from torch import Tensor, nn

from .reference import lif_reference


class LIF(nn.Module):
    """Binary LIF over T: input decay, hard reset to 0 (detached), sigmoid surrogate.

    Args:
        threshold: Membrane potential of a spike (0.5 in the attention neuron of SDT-V2, else 1.0).
        tau: Time constant in steps.
        alpha: Steepness of the surrogate.
    """

    levels = 1
    divisor = 1.0

    def __init__(self, *, threshold: float = 1.0, tau: float = 2.0, alpha: float = 4.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.tau = tau
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Binary spikes of a sequence, (T, B, C, ...) to the same shape."""
        return lif_reference(x, tau=self.tau, threshold=self.threshold, alpha=self.alpha)
