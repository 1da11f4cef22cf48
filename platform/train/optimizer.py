"""AdamW with a learning rate and weight decay by parameter name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from ..config.schema import OptimizerConfig, ParameterRule


def find_rule(name: str, rules: Sequence[ParameterRule]) -> ParameterRule:
    """Find the first rule whose pattern matches a parameter; a neutral rule where none does."""
    for rule in rules:
        if fnmatchcase(name, rule.match):
            return rule
    return ParameterRule(match="*")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Build AdamW with one group of parameters for each learning rate and weight decay.

    Args:
        model: The model; parameters that need no gradient are left out.
        config: Rates and rules.

    Raises:
        ValueError: Where a rule matches no parameter.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    unused = {rule.match for rule in config.rules}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = find_rule(name, config.rules)
        unused.discard(rule.match)
        key = (config.lr * rule.lr, _find_decay(parameter, rule, config))
        groups.setdefault(key, []).append(parameter)
    if unused:
        raise ValueError(
            f"optimizer.rules: no parameter's name matches {sorted(unused)}; names look like "
            f"{next(iter(dict(model.named_parameters())))!r}"
        )
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()
        ],
        betas=config.betas,
    )


def describe_parameters(model: nn.Module, config: OptimizerConfig) -> list[str]:
    """Lines of a table: which rule acts on how many parameters, with which rates.

    Args:
        model: The model.
        config: Rates and rules.
    """
    rows: dict[tuple[str, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = find_rule(name, config.rules)
        decay = _find_decay(parameter, rule, config)
        row = rows.setdefault((rule.match, decay), [rule, 0, 0, name])
        row[1] += 1
        row[2] += parameter.numel()
    lines = [f"{'rule':24} {'tensors':>7} {'values':>11} {'lr':>9} {'decay':>9}  first name"]
    for (match, decay), (rule, tensors, values, name) in rows.items():
        lr = config.lr * rule.lr
        lines.append(f"{match:24} {tensors:7d} {values:11d} {lr:9.2e} {decay:9.2e}  {name}")
    return lines


def _find_decay(parameter: Tensor, rule: ParameterRule, config: OptimizerConfig) -> float:
    if parameter.ndim <= 1 and not config.decay_vectors:
        return 0.0
    return config.weight_decay * rule.weight_decay


def collect_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> dict[str, Tensor]:
    """AdamW's state as tensors named `parameter/entry`, for a checkpoint."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{entry}"] = value.contiguous()
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Load what `collect_optimizer_tensors` returned.

    Raises:
        ValueError: Where a tensor names a parameter that the model does not have.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        if name not in parameters:
            raise ValueError(f"optimizer state names {name!r}, which is no parameter of the model")
        parameter = parameters[name]
        # AdamW keeps its step counter on the CPU, everything else beside the parameter, in the
        # parameter's own memory layout.
        target = torch.empty_like(value if entry == "step" else parameter)
        optimizer.state[parameter][entry] = target.copy_(value)
