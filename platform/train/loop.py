"""The training loop: the same for Ray Train workers, for this process, and for a trial of a sweep.

It knows nothing of Ray and MLflow. What makes it repeatable: a step is a fixed list of
micro-batches that depend on (seed, position) alone; gradients and BatchNorm statistics are reduced
in a fixed layout (`reduction.py`); everything a resumed run needs is in the checkpoint.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

from ..checkpoint.background_writer import CheckpointWriter, open_writer
from ..checkpoint.checkpoint import Evaluation, rank_score
from ..checkpoint.mirror import find_newest
from ..checkpoint.run_folder import RunFolder
from ..cluster.worker_group import WorkerGroup
from ..config.schema import ExperimentConfig
from ..evaluation.recording import Recorder, contact_sheet, record_evaluation
from ..evaluation.scores import (
    EvaluatedModel,
    SplitCounts,
    class_table,
    measure_energy_and_health,
    score_split,
    summary,
)
from ..loading.training_loader import TrainingRows
from .checkpoint_sharing import share_content
from .failure import NonFiniteError, PreemptedError
from .faults.preemption import Notice
from .faults.watchdog import list_hangs
from .faults.worker_guard import Guard
from .health import HealthWatch, draw_first_step, wants_first_step
from .preparation import build_loss, choose_device, initialize_weights, open_data, set_numerics
from .progress import Meter
from .schedule import Schedule
from .state import TrainingState
from .step import Stepper, StepResult, next_divisor

_log = logging.getLogger(__name__)


class Training:
    """One run's training; built first, then started (`start`), then driven by `evaluations`.

    Args:
        config: The experiment.
        run: Its folder; rank 0 must have claimed it.
        group: The workers.
        recorder: Rank 0's journal; None on other ranks.
        progress: Takes a line for a person; None on other ranks.
        notice: Where this process hears that it is to leave; None where nobody tells it.

    Attributes:
        state: Network, optimizer, averages.
        criterion: The loss.
        rows: The micro-batches by (step, index), once it is started.
        dataset: The packed data.
        device: Where the network is.
        schedule: Learning rate and phase of each step.
        around_step: Entered around every step, with the number of steps done before it.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        run: RunFolder,
        *,
        group: WorkerGroup,
        recorder: Recorder | None,
        progress: Callable[[str], None] | None,
        notice: Notice | None = None,
    ) -> None:
        set_numerics(config.trainer)
        self.config = config
        self.run = run
        self.group = group
        self.device = choose_device(config.trainer.device)
        self.dataset = open_data(config)
        self.state = TrainingState(config, self.dataset, workers=group.size, device=self.device)
        self.criterion = build_loss(config, self.dataset).to(self.device)
        self._recorder = recorder
        self._tell = progress or (lambda line: None)
        self._notice = notice or Notice()
        self._warned = False
        self._watch = HealthWatch(config, self._tell)
        self.schedule = Schedule(config, self._tell)
        self.around_step: Callable[[int], contextlib.AbstractContextManager[Any]]
        self.around_step = contextlib.nullcontext
        self._writer: CheckpointWriter | None = None

    def start(self) -> None:
        """Go on from the newest good checkpoint, or give a new network its first weights.

        Rank 0 claims the mirror, and writes a first checkpoint where training may be rolled back.

        Raises:
            ConfigError: Where a checkpoint, or weights that `init` names, do not fit.
            NoGoodCheckpointError: Where the run has checkpoints and none is good.
            OSError: Where the mirror cannot be written.
        """
        trainer, run = self.config.trainer, self.run
        self._writer = open_writer(run, trainer, self._tell) if self.group.rank == 0 else None
        resumed = self._restore()
        self._prepare()
        self._meter = Meter(trainer, step=self.step, device=self.device)
        if resumed:
            for stacks in list_hangs(run.path):
                self._tell(f"an earlier attempt stood still: see {stacks}")
            self._tell(f"attempt {run.attempt} of {run.path.name}: resumed at step {self.step}")
            return
        first = self.rows.read(0, 0)
        initialize_weights(
            self.state.model, self.config, first.images, recorder=self._recorder, tell=self._tell
        )
        if self._recorder is not None and wants_first_step(self.config):
            line = draw_first_step(
                self.state.model,
                self.criterion,
                first,
                precision=trainer.precision,
                recorder=self._recorder,
                folder=run.path,
            )
            self._tell(line)
        if trainer.nonfinite == "rollback":
            self._save()

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.progress.step

    @property
    def history(self) -> list[Evaluation]:
        """Evaluations so far, those of earlier attempts included."""
        return self.state.progress.history

    @property
    def evaluated(self) -> EvaluatedModel:
        """What is evaluated: the averaged weights where `ema_decay` is set."""
        return EvaluatedModel(self.state.evaluated, self.dataset, self.config, self.device)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the highest val/mIoU so far, the earliest among equals."""
        return max(self.history, key=lambda item: rank_score(item.metrics), default=None)

    @property
    def mirror_lacks(self) -> str | None:
        """What the mirror lacks once training has ended; None for nothing."""
        return self._writer.mirror_lacks if self._writer else None

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or `patience` evaluations brought nothing better."""
        trainer = self.config.trainer
        if self.step >= trainer.max_steps:
            return True
        if trainer.patience is None or self.best is None:
            return False
        return len(self.history) - self.history.index(self.best) > trainer.patience

    def evaluations(self) -> Iterator[Evaluation]:
        """Train from evaluation to evaluation, after those that a checkpoint already holds.

        Raises:
            NonFiniteError: Where loss or gradients stop being finite and policy or budget say so.
            PreemptedError: Where this process was asked to leave; its checkpoint is written.
            FencedError: Where another attempt took the run over.
            OSError: Where storage refused a checkpoint.
        """
        trainer = self.config.trainer
        attempt = self.group.broadcast_json(self.run.attempt)
        try:
            for past in list(self.history):
                yield dataclasses.replace(past, replayed=True)
            with Guard(trainer, self.run.path, attempt=attempt, rank=self.group.rank) as guard:
                while (due := self.state.progress.awaits_evaluation(trainer)) or not self.finished:
                    target = self.step if due else self._next_multiple(trainer.evaluate_every)
                    train_metrics = self.advance(target, guard)
                    if train_metrics is not None:
                        evaluation = self._evaluate(train_metrics, guard)
                        guard.rest()
                        yield evaluation
        finally:
            if self._writer is not None:
                self._writer.close(finished=self.finished)

    def load_best(self) -> Evaluation:
        """Put the best checkpoint's evaluated weights into the model; rank 0's choice.

        Returns:
            The evaluation they were chosen by; the next best one, with a warning, where the best
            checkpoint is damaged.

        Raises:
            ValueError: Where no evaluation's checkpoint is good.
        """
        # Rank 0 answers once it has written its last checkpoint, which may be the best one.
        first, checkpoint = self.run.best(self.history) if self._writer else (None, None)
        step = self.group.broadcast_json(first.step if first else None)
        best = next(past for past in self.history if past.step == step)
        if best != self.best:
            self._tell(f"the best checkpoint is damaged, that of step {best.step} is taken")
        weights = None if checkpoint is None else {"model": checkpoint.evaluated()}
        shared = share_content(weights, self.group, self.device)
        self.state.evaluated.load_state_dict(shared["model"])
        return best

    def score(
        self, split: str, on_batch: Callable[[], None] | None = None
    ) -> tuple[dict[str, float], SplitCounts]:
        """Metrics and counts of the evaluated model on a split.

        Args:
            split: Name of the split.
            on_batch: Called after every batch.
        """
        return score_split(self.evaluated, split, group=self.group, on_batch=on_batch)

    def advance(self, target: int, guard: Guard) -> dict[str, float] | None:
        """Train up to a step.

        Args:
            target: Steps done at the end.
            guard: Watchdog and ledger.

        Returns:
            The last logged training metrics; None where a rollback made the target void.
        """
        trainer = self.config.trainer
        metrics: dict[str, float] = {}
        self.state.model.train()
        self._meter.begin(self.step)
        while self.step < target:
            offset = self.state.progress.row_offset
            upcoming = self.rows.steps(self.step, target, self._stepper.indices, offset)
            for micro_batches in upcoming:
                guard.feed()
                rate = self.schedule.begin(self.step, self.state.optimizer)
                with self.around_step(self.step):
                    result = self._stepper.train_step(self.step + offset, micro_batches)
                if result.outcome == "memory":
                    self._use_smaller_micro_batches()
                    break
                if result.outcome == "nonfinite" and self._roll_back_or_skip(result):
                    return None
                guard.write(self.step, self._stepper.indices, micro_batches)
                self.state.progress.step += 1
                self.state.progress.images_seen += trainer.micro_batch_size * trainer.micro_batches
                if self.step % trainer.log_every == 0 or self.step == target:
                    metrics = self._log_step(result, rate)
                self._save_if_due(target, result)
        return metrics

    def _log_step(self, result: StepResult, rate: float) -> dict[str, float]:
        metrics = {**result.metrics(), "train/lr": rate, **self._meter.metrics(self.step)}
        if self._recorder is not None:
            self._recorder.metrics(self.step, metrics)
        trainer = self.config.trainer
        following = self._next_multiple(trainer.checkpoint_every or trainer.evaluate_every)
        following = min(following, self._next_multiple(trainer.evaluate_every))
        self._tell(self._meter.line(self.step, metrics, following))
        return metrics

    def _evaluate(self, train_metrics: dict[str, float], guard: Guard) -> Evaluation:
        """Score val, measure energy, record both, save a checkpoint."""
        metrics, counts = self.score("val", guard.feed)
        report, firing, health = measure_energy_and_health(self.evaluated)
        metrics.update(health)
        if "train/loss" in train_metrics:
            metrics["train/loss"] = train_metrics["train/loss"]
        evaluation = Evaluation(self.step, self.group.broadcast_json(metrics))
        self.history.append(evaluation)
        # Before its checkpoint: an attempt that resumes there does not measure it again.
        if self._recorder is not None and self.best is not None:
            record_evaluation(
                self._recorder,
                evaluation,
                self.best,
                tables={
                    "val_classes": class_table(self.dataset.label_space, counts),
                    "layers": report.tabulate(),
                    "neurons": [dataclasses.asdict(row) for row in firing],
                },
                sheet=contact_sheet(self.evaluated, "val") if self.config.tracking.images else None,
            )
        self._save()
        if self.finished:
            self._flush()
        self._tell(summary(evaluation))
        self._watch.check(firing, self.history)
        if self.finished and self.step < self.config.trainer.max_steps:
            self._tell(f"no better val/mIoU in {self.config.trainer.patience} evaluations: stopped")
        return evaluation

    def _use_smaller_micro_batches(self) -> None:
        before = self.state.progress.micro_batch_size
        self.state.progress.micro_batch_size = after = next_divisor(before)
        self._record_event(
            f"step {self.step}: out of memory with micro-batches of {before}, going on with "
            f"{after}: BatchNorm sees fewer images from here on"
        )
        self._prepare()

    def _roll_back_or_skip(self, result: StepResult) -> bool:
        """React to a step that is not finite; True where training went back to a checkpoint."""
        trainer = self.config.trainer
        what = f"step {self.step}: loss terms {result.terms}, gradient norm {result.norm}"
        self.state.progress.failures += 1
        if trainer.nonfinite == "stop":
            raise NonFiniteError(f"{what}: not finite")
        if self.state.progress.failures > trainer.nonfinite_budget:
            raise NonFiniteError(f"{what}: not finite, and {trainer.nonfinite_budget} times before")
        if trainer.nonfinite == "skip":
            self._record_event(f"{what}: not finite, the update is left out")
            return False
        before = self.state.progress
        self._flush()
        if not self._restore():
            raise NonFiniteError(f"{what}: not finite, and no checkpoint to go back to")
        now = self.state.progress
        now.row_offset = before.row_offset + before.step + 1 - now.step
        now.failures, now.events = before.failures, before.events
        now.micro_batch_size = min(now.micro_batch_size, before.micro_batch_size)
        self._record_event(
            f"{what}: not finite, back to step {self.step}, past the rows up to there"
        )
        self._prepare()
        return True

    def _record_event(self, text: str) -> None:
        """Record what changes results: in the next checkpoint, the journal and the progress."""
        self.state.progress.events.append(text)
        if self._recorder is not None:
            self._recorder.text("events.txt", "\n".join(self.state.progress.events))
        self._tell(text)

    def _prepare(self) -> None:
        """Build rows and stepper for the current micro-batch size."""
        self._stepper = Stepper(
            self.config,
            state=self.state,
            criterion=self.criterion,
            group=self.group,
            notice=self._notice,
            micro_batch_size=self.state.progress.micro_batch_size,
        )
        self.rows = TrainingRows.from_config(
            self.dataset,
            self.config,
            size=self.state.progress.micro_batch_size,
            micro_batches=self._stepper.micro_batches,
            pin_memory=self.device.type == "cuda",
        )

    def _next_multiple(self, every: int) -> int:
        return min((self.step // every + 1) * every, self.config.trainer.max_steps)

    def _save_if_due(self, target: int, result: StepResult) -> None:
        """Save on schedule (`checkpoint_every`) and at a notice to leave."""
        every = self.config.trainer.checkpoint_every
        # Rank 0 decides whether to end: a worker that ended alone would leave the others waiting.
        leaves = result.preempted and self.group.broadcast_json(self._notice.must_leave())
        if leaves or (result.preempted and not self._warned):
            self._warned = True
            self._save()
            self._flush()
            self._tell(f"asked to leave: checkpoint of step {self.step} is written")
            if leaves:
                raise PreemptedError(f"asked to leave at step {self.step}: checkpoint is written")
        elif every is not None and self.step % every == 0 and self.step != target:
            self._save()

    def _save(self) -> None:
        if self._writer is not None:
            best = self.best.step if self.best else None
            tensors = self.state.state_dict()
            self._writer.save(self.step, tensors, tensors.pop("state"), best)

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def _restore(self) -> bool:
        """Go on from the newest good checkpoint; False where there is none at all."""
        newest = find_newest(self.run, self._writer.mirror) if self._writer else None
        if not self.group.broadcast_json(newest is not None):
            return False
        content = share_content(newest and newest.state_dict(), self.group, self.device)
        differences = self.state.load_state_dict(content)
        for line in [*self.run.damaged, *differences] if self.group.rank == 0 else ():
            _log.warning("%s", line)
            self._tell(line)
        if self._recorder is not None and self.run.damaged:
            self._recorder.text(f"damaged/{self.run.attempt:06d}.txt", "\n".join(self.run.damaged))
        return True
