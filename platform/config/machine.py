"""What of an experiment belongs to the machine that runs it, and not to the experiment."""

from collections.abc import Collection
from typing import Any

from ...datasets.cpu_count import count_usable_cpus
from .recipes import Resolved, override

_ANY: dict[str, Any] = {"trainer.device": "auto", "model.neuron.backend": "auto"}


def adapt_to_machine(resolved: Resolved, typed: Collection[str] = ()) -> Resolved:
    """An experiment whose weights are used here, wherever they were trained.

    Device and backend of the neurons are what this machine has, and no more threads are taken
    than it lends; what a person typed stays, and is refused where it cannot be. Storage, workers
    and tracking of the training play no part.

    Args:
        resolved: The experiment as the run recorded it, with what was typed applied.
        typed: Dotted keys that a person gave with the command.
    """
    values = {**_ANY, "trainer.threads": _threads(resolved)}
    chosen = {key: value for key, value in values.items() if key not in typed}
    return override(resolved, chosen, "this machine")


def _threads(resolved: Resolved) -> int:
    return min(resolved.config.trainer.threads, count_usable_cpus())
