"""The state of a training, with torch's `state_dict` protocol: all that a checkpoint holds."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ...datasets.packed.reader import PackedDataset
from ..checkpoint.checkpoint import Evaluation
from ..config.recipes import ConfigError, config_digest, dump
from ..config.schema import ExperimentConfig, TrainerConfig
from .optimizer import build_optimizer, collect_optimizer_tensors, load_optimizer_tensors
from .preparation import build_seeded_model, describe_environment, place_model
from .resume import require_same
from .schedule import average_update


@dataclass(kw_only=True)
class Progress:
    """Where a training stands; all of it is in every checkpoint.

    Attributes:
        micro_batch_size: Images of one forward pass; smaller than configured after running out
            of memory.
        step: Optimizer steps done.
        row_offset: Steps' worth of rows that rollbacks jumped over.
        images_seen: Images trained on.
        history: Evaluations so far.
        events: What happened that changes results: skipped steps, rollbacks, smaller batches.
        failures: Skipped steps and rollbacks so far.
    """

    micro_batch_size: int
    step: int = 0
    row_offset: int = 0
    images_seen: int = 0
    history: list[Evaluation] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    failures: int = 0

    def awaits_evaluation(self, trainer: TrainerConfig) -> bool:
        """Whether an attempt ended between the step of an evaluation and the evaluation."""
        if self.step == 0 or any(past.step == self.step for past in self.history):
            return False
        return self.step % trainer.evaluate_every == 0 or self.step == trainer.max_steps


class TrainingState:
    """Network, optimizer, averages, gradient scaler and progress: what a step changes.

    Args:
        config: The experiment; its seed decides the initial weights.
        dataset: Its packed data.
        workers: Number of workers.
        device: Where all of it lives.

    Attributes:
        model: The network that is trained.
        optimizer: Its optimizer.
        average: Its averaged weights, where `ema_decay` is set.
        scaler: The gradient scaler; disabled but for fp16.
        progress: Where the training stands.
        device: Where all of it lives.
        image_format: Memory format of the images that the network is trained on.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        dataset: PackedDataset,
        *,
        workers: int,
        device: torch.device,
    ) -> None:
        trainer = config.trainer
        self.device = device
        self.progress = Progress(micro_batch_size=trainer.micro_batch_size)
        self._config = config
        self._dataset = dataset
        self._environment = describe_environment(workers, device)
        self.model = place_model(build_seeded_model(config), trainer, device)
        self.image_format = torch.channels_last
        if trainer.memory_format == "contiguous":
            self.image_format = torch.contiguous_format
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.average: AveragedModel | None = None
        if trainer.ema_decay is not None:
            update = average_update(trainer.ema_decay, trainer.ema_start)
            self.average = AveragedModel(self.model, multi_avg_fn=update, use_buffers=True)
        scaled = trainer.precision == "fp16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    @property
    def evaluated(self) -> nn.Module:
        """The averaged weights where there are any, else the trained ones."""
        return self.model if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: live tensors by file name, and `state`, the rest, for JSON."""
        content: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": collect_optimizer_tensors(self.optimizer, self.model),
        }
        if self.average is not None:
            content["ema"] = self.average.module.state_dict()
        history = [{"step": e.step, "metrics": e.metrics} for e in self.progress.history]
        content["state"] = {
            **dataclasses.asdict(self.progress),
            "history": history,
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "scaler": self.scaler.state_dict(),
            "config": dump(self._config),
            "config_digest": config_digest(self._config),
            "data_digest": self._dataset.digest,
            "label_space": self._dataset.label_space.to_json(),
            "environment": self._environment,
        }
        return content

    def load_state_dict(self, content: Mapping[str, Any]) -> list[str]:
        """Load what `state_dict` returned.

        Args:
            content: As `Checkpoint.state_dict` reads it back.

        Returns:
            What differs from where it was written: a sentence for each setting that decides the
            last bits of results, with both values.

        Raises:
            ConfigError: Where it was trained on other data, or under other settings that decide
                results.
        """
        state = content["state"]
        require_same(state["config"], self._config)
        if state["data_digest"] != self._dataset.digest:
            raise ConfigError(
                f"data.path: the digest of {self._config.data.path} differs from the one this run "
                f"was trained on ({self._dataset.digest[:12]} and {state['data_digest'][:12]})"
            )
        self.model.load_state_dict(content["model"])
        load_optimizer_tensors(self.optimizer, self.model, content["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(content["ema"])
            self.average.n_averaged.fill_(state["averaged"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        names = [item.name for item in dataclasses.fields(Progress) if item.name != "history"]
        history = [Evaluation(e["step"], e["metrics"]) for e in state["history"]]
        self.progress = Progress(**{name: state[name] for name in names}, history=history)
        return [
            f"resumed with {key} {now}, before {state['environment'].get(key)}: the last bits of "
            "results will differ"
            for key, now in self._environment.items()
            if state["environment"].get(key) != now
        ]
