"""Whether a failed trial failed by its own point or by the machines that it ran on."""

from typing import Literal

Cause = Literal["point", "infrastructure"]
_BEGINS = (
    "killed: ",
    "ended without a decision",
    "ended before its full budget",
    "not run again: ",
    "PreemptedError: ",
    "WorkerGroupError: ",
    "RayActorError: ",
    "ActorDiedError: ",
    "NodeDiedError: ",
)


def failure_cause(reason: str) -> Cause:
    """What made a trial fail: its own point (not finite, memory, refused), or a lost process.

    A lost process was tried again as often as the sweep allows (`max_failures`) before.

    Args:
        reason: The trial's reason.
    """
    return "infrastructure" if reason.startswith(_BEGINS) else "point"


def describe_cause(cause: Cause) -> str:
    """A cause in words."""
    words = {
        "point": "the point's own",
        "infrastructure": "the machines': its process was lost, and so again when tried again",
    }
    return words[cause]
