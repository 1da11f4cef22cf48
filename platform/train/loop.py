"""The training loop: the same for Ray Train workers, for this process, and for a trial of a sweep.

It knows nothing of Ray and MLflow. What makes it repeatable: a step is a fixed list of
micro-batches that depend on (seed, position) alone; gradients and BatchNorm statistics are reduced
in a fixed layout (`reduction.py`); everything a resumed run needs is in the checkpoint.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ...model.accounting.firing import FiringMonitor
from ...model.initialize import calibrate_attention
from ...model.loss.criterion import build_criterion
from ...model.metrics.segmentation import segmentation_scores
from ..config import ConfigError, config_digest, dump
from ..experiment import ExperimentConfig
from ..ingest import MicroBatch, TrainingRows
from .checkpoint import Evaluation, RunFolder
from .evaluate import class_table, count_split, health_metrics, measure_energy, score_metrics
from .optimizer import (
    build_optimizer,
    learning_rate_factor,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from .record import Recorder, contact_sheet, record_evaluation
from .reduction import StepVector, WorkerGroup, share
from .setup import choose_device, open_data, seeded_model

_log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Loss or gradients are not finite; going on would only spread them."""


class Training:
    """One run's training, from its newest checkpoint or from the start.

    Args:
        config: The experiment.
        run: Its folder; rank 0 must have claimed it.
        group: The workers.
        recorder: Rank 0's journal; None on other ranks.
        progress: Takes a line for a person; None on other ranks.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        run: RunFolder,
        *,
        group: WorkerGroup,
        recorder: Recorder | None,
        progress: Callable[[str], None] | None,
    ) -> None:
        trainer = config.trainer
        torch.set_num_threads(trainer.threads)
        self.config = config
        self.run = run
        self.group = group
        self.device = choose_device(trainer.device)
        self.dataset = open_data(config)
        self.step = 0
        self.history: list[Evaluation] = []
        self._recorder = recorder
        self._progress = progress
        self._model = seeded_model(config).to(self.device)
        if self.device.type == "cpu" or trainer.precision == "bf16":
            self._model = self._model.to(memory_format=torch.channels_last)
        self._criterion = build_criterion(
            config.loss,
            config.model,
            torch.tensor(self.dataset.class_pixels("train"), dtype=torch.float32),
        ).to(self.device)
        self._optimizer = build_optimizer(self._model, config.optimizer)
        self._average = (
            AveragedModel(
                self._model,
                multi_avg_fn=get_ema_multi_avg_fn(trainer.ema_decay),
                use_buffers=True,
            )
            if trainer.ema_decay is not None
            else None
        )
        self._rows = TrainingRows(
            self.dataset,
            config.data.transform,
            seed=config.seed,
            size=trainer.micro_batch_size,
            micro_batches=trainer.micro_batches,
            window=config.data.shuffle_window,
            prefetch=config.data.prefetch,
        )
        self._vector = StepVector(
            self._model,
            num_terms=len(self._criterion.terms),
            micro_batches=trainer.micro_batches,
            group=group,
            reduction=trainer.reduction,
        )
        self._images_seen = 0
        self._restore()
        if self.step == 0 and config.model.compat == "corrected":
            # Every rank reads the same micro-batch, so all start from the same weights.
            first = self._rows.read(0, 0).images.to(self.device)
            calibrate_attention(self._model, first)

    @property
    def model(self) -> nn.Module:
        """The model that is evaluated: the averaged weights where `ema_decay` is set."""
        return self._model if self._average is None else self._average.module

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the highest val/mIoU so far, the earliest among equals."""
        return max(self.history, key=lambda item: item.metrics["val/mIoU"], default=None)

    def evaluations(self) -> Iterator[Evaluation]:
        """Train from evaluation to evaluation, after those that a checkpoint already holds.

        Raises:
            NonFiniteError: Where loss or gradients stop being finite.
            FencedError: Where another attempt took the run over.
        """
        for past in list(self.history):
            yield dataclasses.replace(past, replayed=True)
        while self.step < self.config.trainer.max_steps:
            every = self.config.trainer.evaluate_every
            target = min((self.step // every + 1) * every, self.config.trainer.max_steps)
            train_metrics = self._advance(target)
            yield self._evaluate(train_metrics)

    def load_best(self) -> Evaluation:
        """Put the best checkpoint's evaluated weights into the model; rank 0's choice.

        Returns:
            The evaluation they were chosen by.
        """
        # Rank 0 answers once it has written its last checkpoint, which may be the best one.
        best = self.group.agree(self.best)
        assert best is not None, "nothing was evaluated yet"
        checkpoint = self.run.at(best.step)
        self.model.load_state_dict(checkpoint.tensors("model" if self._average is None else "ema"))
        return best

    def score(self, split: str) -> tuple[dict[str, float], Tensor]:
        """Metrics and confusion counts of the evaluated model on a split."""
        counts = count_split(
            self.model,
            self.dataset,
            split,
            data=self.config.data,
            device=self.device,
            group=self.group,
        )
        return score_metrics(split, segmentation_scores(counts)), counts

    def _advance(self, target: int) -> dict[str, float]:
        """Train up to a step; returns the last logged training metrics."""
        config = self.config
        trainer = config.trainer
        mine = share(trainer.micro_batches, self.group)
        started, first = time.monotonic(), self.step
        metrics: dict[str, float] = {}
        self._model.train()
        for micro_batches in self._rows.steps(self.step, target, mine):
            factor = learning_rate_factor(self.step, config.optimizer, trainer.max_steps)
            set_learning_rate(self._optimizer, factor)
            norm, terms = self._one_step(micro_batches, mine)
            self.step += 1
            self._images_seen += trainer.micro_batch_size * trainer.micro_batches
            if self.step % trainer.log_every and self.step != target:
                continue
            rate = (
                (self.step - first)
                * trainer.micro_batch_size
                * trainer.micro_batches
                / (time.monotonic() - started)
            )
            metrics = {
                "train/loss": sum(terms.values()),
                **{f"train/loss_{name}": value for name, value in terms.items()},
                "train/lr": config.optimizer.lr * factor,
                "train/grad_norm": norm,
                "perf/images_per_s": rate,
            }
            if self._recorder is not None:
                self._recorder.metrics(self.step, metrics)
            self._tell(
                f"step {self.step}/{trainer.max_steps}  loss {metrics['train/loss']:.3f}  "
                f"grad {norm:.3g}  lr {metrics['train/lr']:.2e}  {rate:.1f} images/s  "
                f"ETA {_clock(self._images_left() / rate)}"
            )
        return metrics

    def _one_step(
        self, micro_batches: list[MicroBatch], mine: range
    ) -> tuple[float, dict[str, float]]:
        """Forward, backward, reduce, clip, update; returns gradient norm and mean loss terms."""
        trainer = self.config.trainer
        total = trainer.micro_batches
        targets = [batch.targets.to(self.device) for batch in micro_batches]
        # Counts are whole numbers: their sum is exact whatever the order.
        count = torch.zeros((), dtype=torch.float64, device=self.device)
        for target in targets:
            count += self._criterion.count(target)
        self.group.sum(count)
        normalizer = (count / total).float()
        self._vector.begin()
        for index, batch, target in zip(mine, micro_batches, targets, strict=True):
            # Randomness inside a model, if a later one has any, belongs to the micro-batch.
            torch.manual_seed(hash((self.config.seed, self.step, index)) & (2**63 - 1))
            images = batch.images.to(self.device, memory_format=torch.channels_last)
            terms = self._terms(images, target, normalizer)
            (sum(terms.values()) / total).backward()  # type: ignore[union-attr]
            self._vector.add(index, [terms[name].detach() for name in self._criterion.terms])
        self._vector.reduce()
        gradient = self._vector.gradient
        norm = float(torch.linalg.vector_norm(gradient))
        values = (self._vector.terms / total).tolist()
        named = dict(zip(self._criterion.terms, values, strict=True))
        if not math.isfinite(norm) or not all(map(math.isfinite, values)):
            raise NonFiniteError(
                f"step {self.step}: loss terms {named}, gradient norm {norm}: not finite"
            )
        clip = self.config.optimizer.clip_norm
        if clip is not None and norm > clip:
            gradient.mul_(clip / (norm + 1e-6))
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._model)
        return norm, named

    def _terms(self, images: Tensor, target: Tensor, normalizer: Tensor) -> dict[str, Tensor]:
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.trainer.precision == "bf16"
        ):
            prediction = self._model(images)
        return self._criterion(prediction, target, normalizer)

    def _evaluate(self, train_metrics: dict[str, float]) -> Evaluation:
        """Score val, measure energy, keep a checkpoint, tell the recorder."""
        metrics, counts = self.score("val")
        with FiringMonitor(self.model) as monitor:
            report = measure_energy(
                self.model,
                self.dataset,
                data=self.config.data,
                images=self.config.trainer.energy_images,
                device=self.device,
            )
        metrics.update(health_metrics(monitor.rows()))
        rates = [row.rate for row in report.rows if row.spiking_input]
        metrics["energy/mJ"] = report.total_mj
        metrics["snn/firing_rate"] = sum(rates) / max(1, len(rates))
        if "train/loss" in train_metrics:
            metrics["train/loss"] = train_metrics["train/loss"]
        evaluation = self.group.agree(Evaluation(self.step, metrics))
        self.history.append(evaluation)
        if self.group.rank == 0:
            self._save()
        if self._recorder is not None and self.best is not None:
            record_evaluation(
                self._recorder,
                evaluation,
                self.best,
                classes=class_table(self.dataset.label_space.classes, counts),
                layers=[dataclasses.asdict(row) for row in report.rows],
                sheet=self.contact_sheet("val") if self.config.tracking.images else None,
            )
        self._tell(
            f"step {self.step}: val mIoU {metrics['val/mIoU']:.2f}  aAcc {metrics['val/aAcc']:.2f}"
            f"  energy {report.total_mj:.4g} mJ  firing rate {metrics['snn/firing_rate']:.3f}"
        )
        return evaluation

    def contact_sheet(self, split: str) -> bytes:
        """PNG of a few rows of a split: image, truth, prediction, error."""
        return contact_sheet(self.model, self.dataset, split, self.config, self.device)

    def _save(self) -> None:
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": self._model.state_dict(),
            "optimizer": optimizer_tensors(self._optimizer, self._model),
        }
        if self._average is not None:
            tensors["ema"] = self._average.module.state_dict()
        state = {
            "history": [{"step": e.step, "metrics": e.metrics} for e in self.history],
            "images_seen": self._images_seen,
            "config": dump(self.config),
            "config_digest": config_digest(self.config),
            "data_digest": self.dataset.digest,
            "label_space": self.dataset.label_space.to_json(),
            "environment": self._environment(),
        }
        self.run.save(self.step, tensors, state)
        best = self.best
        self.run.retain(self.config.trainer.keep_checkpoints, best.step if best else None)

    def _restore(self) -> None:
        newest = self.run.newest() if self.group.rank == 0 else None
        step = self.group.agree(newest.step if newest else None)
        if step is None:
            return
        checkpoint = newest or self.run.at(step)
        state = checkpoint.state
        if state["data_digest"] != self.dataset.digest:
            raise ConfigError(
                f"data.path: the digest of {self.config.data.path} differs from the one this run "
                f"was trained on ({self.dataset.digest[:12]} and {state['data_digest'][:12]})"
            )
        for key, now in self._environment().items():
            before = state["environment"].get(key)
            if before != now and self.group.rank == 0:
                _log.warning("resumed with %s %s, before %s: results will differ", key, now, before)
        self._model.load_state_dict(checkpoint.tensors("model"))
        load_optimizer_tensors(self._optimizer, self._model, checkpoint.tensors("optimizer"))
        if self._average is not None:
            self._average.module.load_state_dict(checkpoint.tensors("ema"))
            self._average.n_averaged.fill_(step)
        self.step = step
        self._images_seen = int(state["images_seen"])
        self.history = [Evaluation(e["step"], e["metrics"]) for e in state["history"]]
        self._tell(f"resumed at step {step} from {checkpoint.path}")

    def _environment(self) -> dict[str, Any]:
        """What decides the last bit of a result besides configuration and data."""
        return {
            "workers": self.group.size,
            "threads": torch.get_num_threads(),
            "onednn": torch.backends.mkldnn.enabled,
            "torch": torch.__version__,
            "device": self.device.type,
        }

    def _images_left(self) -> int:
        trainer = self.config.trainer
        return (trainer.max_steps - self.step) * trainer.micro_batch_size * trainer.micro_batches

    def _tell(self, line: str) -> None:
        if self._progress is not None:
            self._progress(line)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
