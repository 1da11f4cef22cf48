"""What a training is made of and where it stands; taken into a checkpoint and put back."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...datasets.packed.reader import PackedDataset
from ..checkpoint.checkpoint import Checkpoint, Evaluation
from ..config.recipes import ConfigError, config_digest, dump
from ..config.schema import ExperimentConfig, TrainerConfig
from .optimizer import build_optimizer, load_optimizer_tensors, optimizer_tensors
from .preparation import environment, seeded_model
from .resume import require_same


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
    """Network, optimizer, averages and gradient scaler: what a step changes.

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
        device: Where all of it lives.
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
        self._config = config
        self._dataset = dataset
        self._environment = environment(workers, device)
        self.model = seeded_model(config).to(device)
        if device.type == "cpu" or trainer.precision != "fp32":
            self.model = self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.average: AveragedModel | None = None
        if trainer.ema_decay is not None:
            average = get_ema_multi_avg_fn(trainer.ema_decay)
            self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        scaled = trainer.precision == "fp16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    @property
    def evaluated(self) -> nn.Module:
        """The averaged weights where there are any, else the trained ones."""
        return self.model if self.average is None else self.average.module

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """File name -> live tensors by name."""
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
        }
        if self.average is not None:
            tensors["ema"] = self.average.module.state_dict()
        return tensors

    def values(self, progress: Progress) -> dict[str, Any]:
        """Everything but tensors, as JSON takes it."""
        return {
            **dataclasses.asdict(progress),
            "history": [{"step": e.step, "metrics": e.metrics} for e in progress.history],
            "averaged": 0 if self.average is None else int(self.average.n_averaged),
            "scaler": self.scaler.state_dict(),
            "config": dump(self._config),
            "config_digest": config_digest(self._config),
            "data_digest": self._dataset.digest,
            "label_space": self._dataset.label_space.to_json(),
            "environment": self._environment,
        }

    def put_back(self, checkpoint: Checkpoint) -> tuple[Progress, list[str]]:
        """Load a checkpoint into the training.

        Args:
            checkpoint: A good one.

        Returns:
            Where the training stands, and what differs from where it was written: a setting that
            decides the last bit of results, with both values.

        Raises:
            ConfigError: Where it was trained on other data, or under other settings that decide
                results.
        """
        state = checkpoint.state
        require_same(state["config"], self._config)
        if state["data_digest"] != self._dataset.digest:
            raise ConfigError(
                f"data.path: the digest of {self._config.data.path} differs from the one this run "
                f"was trained on ({self._dataset.digest[:12]} and {state['data_digest'][:12]})"
            )
        differences = [
            f"resumed with {key} {now}, before {state['environment'].get(key)}: the last bits of "
            "results will differ"
            for key, now in self._environment.items()
            if state["environment"].get(key) != now
        ]
        self.model.load_state_dict(checkpoint.tensors("model"))
        load_optimizer_tensors(self.optimizer, self.model, checkpoint.tensors("optimizer"))
        if self.average is not None:
            self.average.module.load_state_dict(checkpoint.tensors("ema"))
            self.average.n_averaged.fill_(state["averaged"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        names = [item.name for item in dataclasses.fields(Progress) if item.name != "history"]
        history = [Evaluation(e["step"], e["metrics"]) for e in state["history"]]
        return Progress(**{name: state[name] for name in names}, history=history), differences
