"""One optimizer step: forward, backward, reduce, clip, update, or a reason why not."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from ...model.loss.criterion import DenseCriterion, SetCriterion
from ..cluster.worker_group import WorkerGroup
from ..config.schema import ExperimentConfig
from ..loading.training_loader import MicroBatch
from .failure import OutOfMemoryForGoodError
from .faults.preemption import Notice
from .passes.reduction import StepVector, micro_batch_range
from .passes.step_graph import StepGraph, find_graph_obstacle
from .passes.synchronized_norm import synchronize
from .state import TrainingState

_log = logging.getLogger(__name__)
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def next_divisor(micro_batch_size: int) -> int:
    """The largest proper divisor: the micro-batch size after running out of memory.

    Args:
        micro_batch_size: Images of one forward pass.

    Raises:
        OutOfMemoryForGoodError: Where it is 1 already.
    """
    if micro_batch_size == 1:
        raise OutOfMemoryForGoodError(
            "out of memory with a micro-batch of one image: a smaller model, crop or number of "
            "timesteps is needed"
        )
    return max(n for n in range(1, micro_batch_size) if micro_batch_size % n == 0)


class StepResult(NamedTuple):
    """Outcome of one step, the same on every worker.

    Attributes:
        outcome: `done`; `rescaled` left the update out because fp16 gradients overflowed, which
            lowers their scale and is no failure; `nonfinite` left it out because loss or gradients
            are not finite; `memory` did nothing because a worker ran out of memory.
        norm: Global gradient norm before clipping.
        terms: Mean loss terms.
        preempted: Some worker received a notice to leave.
    """

    outcome: Literal["done", "rescaled", "nonfinite", "memory"]
    norm: float
    terms: dict[str, float]
    preempted: bool

    def metrics(self) -> dict[str, float]:
        """Loss, its terms and the gradient's norm under their names in MLflow."""
        return {
            "train/loss": sum(self.terms.values()),
            **{f"train/loss_{name}": value for name, value in self.terms.items()},
            "train/grad_norm": self.norm,
        }


class Stepper:
    """Runs optimizer steps of a fixed list of micro-batches.

    Args:
        config: The experiment.
        state: Network, optimizer, averages and scaler, which the steps change.
        criterion: The loss, on the network's device.
        group: The workers.
        notice: Asked once a step whether this process is to leave.
        micro_batch_size: Images of one forward pass; divides the configured size.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        state: TrainingState,
        criterion: SetCriterion | DenseCriterion,
        group: WorkerGroup,
        notice: Notice,
        micro_batch_size: int,
    ) -> None:
        trainer = config.trainer
        self.micro_batch_size = micro_batch_size
        self.micro_batches = trainer.micro_batch_size * trainer.micro_batches // micro_batch_size
        self.indices = micro_batch_range(self.micro_batches, group)
        self._seed = config.seed
        self._precision = trainer.precision
        self._clip = config.optimizer.clip_norm
        self._synchronized = trainer.batch_norm == "synchronized" and group.size > 1
        if self._synchronized:
            synchronize(state.model, group)
        self._state = state
        self._criterion = criterion
        self._group = group
        self._device = state.device
        self._notice = notice
        self._vector = StepVector(
            state.model,
            num_terms=len(criterion.terms),
            micro_batches=self.micro_batches,
            group=group,
            reduction=trainer.reduction,
        )
        self._graph: StepGraph | None = None
        if trainer.cuda_graph:
            obstacle = find_graph_obstacle(config, self._device, group.size)
            if obstacle:
                message = "trainer.cuda_graph is set, but %s: steps run operation by operation"
                _log.warning(message, obstacle)
            else:
                self._graph = StepGraph(self._run_checked_pass, state.model)

    def train_step(self, step: int, micro_batches: Sequence[MicroBatch]) -> StepResult:
        """Train on one step's micro-batches.

        Args:
            step: Its number in the stream of rows; with seed and index it seeds randomness.
            micro_batches: This worker's share, in order.

        Returns:
            The outcome; where it is not `done`, weights, statistics and averages are as before.
        """
        targets = [batch.targets.to(self._device) for batch in micro_batches]
        # Whole numbers: their sums are exact whatever the order.
        signals = torch.zeros(2, dtype=torch.float64, device=self._device)
        for target in targets:
            signals[0] += self._criterion.count(target)
        signals[1] = float(self._notice.received())
        self._group.sum(signals)
        normalizer = (signals[0] / self.micro_batches).float()
        complete = self._accumulate_gradients(step, micro_batches, targets, normalizer)
        preempted = bool(signals[1] > 0)
        if not complete:
            return StepResult("memory", math.nan, {}, preempted)
        values = (self._vector.terms / self.micro_batches).tolist()
        named = dict(zip(self._criterion.terms, values, strict=True))
        with record_function("update"):
            return self._update(named, preempted)

    def _accumulate_gradients(
        self,
        step: int,
        micro_batches: Sequence[MicroBatch],
        targets: Sequence[Tensor],
        normalizer: Tensor,
    ) -> bool:
        """Sum gradients, statistics and loss terms; False where a worker ran out of memory."""
        self._vector.begin()
        try:
            for index, batch, target in zip(self.indices, micro_batches, targets, strict=True):
                # Randomness inside a model, if a later one has any, belongs to the micro-batch.
                torch.manual_seed(hash((self._seed, step, index)) & (2**63 - 1))
                images = batch.images.to(
                    self._device, memory_format=self._state.image_format, non_blocking=True
                )
                self._vector.add(index, self._run_pass(images, target, normalizer))
        except torch.OutOfMemoryError as error:
            if self._synchronized:
                # The others wait for this one in a layer: there is no common way back.
                raise OutOfMemoryForGoodError(
                    f"out of memory with {self.micro_batch_size} images, and micro-batches of "
                    "batch_norm: synchronized are not halved: give a smaller micro_batch_size and "
                    "more workers"
                ) from error
            _log.warning("out of memory with %d images: %s", self.micro_batch_size, error)
            self._vector.fail()
        with record_function("sum over workers"):
            return self._vector.reduce()

    def _run_pass(self, images: Tensor, target: Tensor, normalizer: Tensor) -> list[Tensor]:
        """Detached loss terms of a micro-batch; its gradients are added."""
        if self._graph is not None:
            assert isinstance(self._criterion, DenseCriterion)
            self._criterion.check(target)
            try:
                return self._graph.run(images, target, normalizer)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                message = "steps run operation by operation, no CUDA graph of them is captured: %s"
                _log.warning(message, error)
                self._graph = None
        # The names by which a profile shows a step's parts.
        with record_function("forward and loss"):
            terms = self._loss_terms(images, target, normalizer)
        return self._add_gradients(terms)

    def _run_checked_pass(self, images: Tensor, target: Tensor, normalizer: Tensor) -> list[Tensor]:
        """As `_run_pass`, of targets that were checked, without waiting for the device."""
        assert isinstance(self._criterion, DenseCriterion)
        prediction = self._predict(images)
        return self._add_gradients(self._criterion.compute(prediction, target, normalizer))

    def _add_gradients(self, terms: dict[str, Tensor]) -> list[Tensor]:
        loss = torch.stack(list(terms.values())).sum() / self.micro_batches
        if loss.requires_grad:
            with record_function("backward"):
                self._state.scaler.scale(loss).backward()
        return [terms[name].detach() for name in self._criterion.terms]

    def _predict(self, images: Tensor) -> Any:
        with torch.autocast(
            self._device.type,
            _TYPES.get(self._precision, torch.bfloat16),
            enabled=self._precision in _TYPES,
        ):
            return self._state.model(images)

    def _loss_terms(self, images: Tensor, target: Tensor, normalizer: Tensor) -> dict[str, Tensor]:
        prediction = self._predict(images)
        try:
            return self._criterion(prediction, target, normalizer)
        except ValueError:
            # Matching refuses costs that are not finite; anything else is its user's mistake.
            if all(part.isfinite().all() for part in prediction if isinstance(part, Tensor)):
                raise
            nan = torch.full((), math.nan, device=self._device)
            return dict.fromkeys(self._criterion.terms, nan)

    def _update(self, named: dict[str, float], preempted: bool) -> StepResult:
        gradient = self._vector.gradient
        if self._state.scaler.is_enabled():
            self._state.scaler.unscale_(self._state.optimizer)
        norm = float(torch.linalg.vector_norm(gradient))
        finite = all(map(math.isfinite, named.values()))
        if not (finite and math.isfinite(norm)):
            self._vector.undo()
            if self._state.scaler.is_enabled():
                self._state.scaler.update()
            overflow = finite and self._state.scaler.is_enabled()
            return StepResult("rescaled" if overflow else "nonfinite", norm, named, preempted)
        if self._clip is not None and norm > self._clip:
            gradient.mul_(self._clip / (norm + 1e-6))
        if self._state.scaler.is_enabled():
            self._state.scaler.step(self._state.optimizer)
            self._state.scaler.update()
        else:
            self._state.optimizer.step()
        if self._state.average is not None:
            self._state.average.update_parameters(self._state.model)
        return StepResult("done", norm, named, preempted)
