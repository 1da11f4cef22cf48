"""The ways a training fails, and which of them are worth another attempt."""

from enum import Enum

from ...datasets.spec import DataError
from ...model.neuron.backends.dispatch import BackendError
from ..checkpoint.run_folder import FencedError, NoGoodCheckpointError
from ..config.recipes import ConfigError


class NonFiniteError(RuntimeError):
    """Loss or gradients are not finite; going on would only spread them."""


class PreemptedError(RuntimeError):
    """The process was asked to leave; a checkpoint of this very step is written."""


class OutOfMemoryForGoodError(RuntimeError):
    """Out of memory with a micro-batch of one image: nothing is left to halve."""


class Decision(Enum):
    """What to do about a failed worker."""

    RETRY = "retry"
    RAISE = "raise"


_PERMANENT = (
    ConfigError,
    DataError,
    BackendError,
    NonFiniteError,
    OutOfMemoryForGoodError,
    FencedError,
    NoGoodCheckpointError,
    ValueError,
)


def decide(error: BaseException) -> Decision:
    """RAISE for what another attempt would meet again, RETRY for everything else.

    Args:
        error: What a worker raised. A worker that was killed raises nothing: Ray Train restarts
            the group without asking.
    """
    return Decision.RAISE if isinstance(error, _PERMANENT) else Decision.RETRY
