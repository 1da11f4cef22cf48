"""The constants of an integer neuron, passed whole from the configuration to the kernels."""

from typing import Literal, NamedTuple, Self

from .constraints import require

Rounding = Literal["half_even", "half_up"]
Window = Literal["closed", "open"]
Dynamics = Literal["stateless", "temporal"]


class FiringRule(NamedTuple):
    """When and how often an integer neuron fires, and what its gradient is.

    Attributes:
        levels: D, largest spike count of one step, at least 1.
        divisor: What the spike count is divided by, positive.
        threshold: Membrane potential of one spike, positive.
        rounding: How exact halves round.
        window: Where the surrogate gradient is 1: [0, D] or (0, D).
        dynamics: `stateless`, or `temporal` with decay and soft reset over T.
        decay: Share of the membrane potential kept between steps, in [0, 1]; read by `temporal`.
    """

    levels: int
    divisor: float
    threshold: float = 1.0
    rounding: Rounding = "half_even"
    window: Window = "closed"
    dynamics: Dynamics = "stateless"
    decay: float = 0.25

    def checked(self) -> Self:
        """The rule itself.

        Raises:
            ValueError: Where a number or a word is not one that `constraints.py` allows.
        """
        require(**self._asdict())
        return self
