"""Which failures are worth another attempt."""

from enum import Enum

from ..config import ConfigError
from .checkpoint import FencedError, NoGoodCheckpointError
from .loop import NonFiniteError


class Decision(Enum):
    """What to do about a failed worker."""

    RETRY = "retry"
    RAISE = "raise"


def decide(error: BaseException) -> Decision:
    """RAISE for what another attempt would meet again, RETRY for everything else.

    Args:
        error: What a worker raised. A worker that was killed raises nothing: Ray Train restarts
            the group without asking.
    """
    permanent = (ConfigError, NonFiniteError, FencedError, NoGoodCheckpointError, ValueError)
    return Decision.RAISE if isinstance(error, permanent) else Decision.RETRY
