"""What training tools wrap around a model's keys and state dict, taken off again."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Keys of a checkpoint below which its state dict lies.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net")
# DistributedDataParallel, AveragedModel; torch.compile; FSDP; activation checkpoints.
_PARTS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Lightning modules and others that hold the network in a field.
_FIELDS = ("model", "net", "network", "segmentor")
# Counters of AveragedModel and the like, beside the weights.
_COUNTERS = ("n_averaged",)


def find_state_dict(content: Any) -> Any:
    """The state dict inside of a checkpoint; what was given where no key leads to one."""
    for _ in _CONTAINERS:
        inner = content if isinstance(content, dict) else {}
        # A placeholder is an empty dict.
        below = [inner[name] for name in _CONTAINERS if isinstance(inner.get(name), dict)]
        filled = [item for item in below if item]
        if not filled:
            break
        content = filled[0]
    return content


def unwrap_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take wrapping parts off the keys of a state dict.

    Args:
        state: Keys -> tensors.

    Returns:
        The same tensors under the keys of the model inside, and the parts that were taken off;
        none where two tensors would get one key.
    """
    taken: dict[str, None] = {}
    unwrapped: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in _COUNTERS:
            taken[key] = None
            continue
        parts = key.split(".")
        taken.update((f"{part}.", None) for part in parts if part in _PARTS)
        unwrapped[".".join(part for part in parts if part not in _PARTS)] = value
    while unwrapped:
        field = next(iter(unwrapped)).partition(".")[0]
        if field not in _FIELDS or not all(key.startswith(f"{field}.") for key in unwrapped):
            break
        taken[f"{field}."] = None
        unwrapped = {key.removeprefix(f"{field}."): value for key, value in unwrapped.items()}
    counters = sum(key in _COUNTERS for key in state)
    if not taken or len(unwrapped) + counters != len(state):
        return dict(state), []
    return unwrapped, list(taken)
