"""What one process of an evaluation does: score some rows in every form of the network."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...datasets.segment_targets import number_segments
from ...datasets.spec import Row
from ...model.accounting.energy import estimate_energy
from ...model.metrics.segmentation import confusion_counts
from ...model.postprocess import PanopticMap, semantic_logits
from ..cluster.task_pool import PoolSize
from ..config.schema import ExperimentConfig
from ..evaluation.calibration import BINS, count_calibration
from ..evaluation.class_scores import (
    InferenceSettings,
    MergedScores,
    prepare_images,
    resize_scores,
    score_images,
    to_probabilities,
)
from ..evaluation.image_scores import count_boundaries, describe_image
from ..evaluation.panoptic import PanopticTotal, predict_segments
from ..loading.read_ahead import read_ahead
from ..prediction.network_forms import FormChoice, NetworkForm, open_form
from ..runs.predict_images import LoadedModel, Machine, load_model
from ..train.preparation import open_data
from .submission import SubmissionWriter


class Submission(NamedTuple):
    """Files for the owners of a benchmark.

    Attributes:
        kind: Key of `FORMATS`.
        folder: Where they are written.
    """

    kind: str
    folder: Path


class EvaluateRequest(NamedTuple):
    """One call of `evaluate`.

    Attributes:
        checkpoint: A checkpoint's or a run's folder.
        overrides: Items `field=value` over the run's configuration.
        split: Split that is scored.
        inference: How images are shown.
        others: Forms that are scored beside the trained one.
        machine: What computes.
        pool: Processes.
        energy: Whether the energy of every image is measured, by a forward pass of its own.
        submission: Files for the owners of a benchmark; None for none.
        levels: D of every neuron; None as trained.
        operations: Whether operations are counted, where one process shows whole images once.
    """

    checkpoint: Path
    overrides: tuple[str, ...]
    split: str
    inference: InferenceSettings = InferenceSettings()
    others: tuple[FormChoice, ...] = ()
    machine: Machine = Machine()
    pool: PoolSize = PoolSize()
    energy: bool = False
    submission: Submission | None = None
    levels: int | None = None
    operations: bool = False

    @property
    def counts_operations(self) -> bool:
        """Whether the passes of this process are one for each image, and their sum is asked for."""
        plain = self.inference.window is None and not self.inference.flip
        one = self.pool.processes == 1 and not self.pool.ray and self.inference.scales == (1.0,)
        return self.operations and plain and one and not self.energy


class FormCounts(NamedTuple):
    """What the scores of one form are computed from.

    Attributes:
        confusion: (K, K + 1) int64.
        different: Pixels whose label differs from the trained form's.
        panoptic: (K, 4) int64 of `PanopticTotal`; None where the task is semantic, or images are
            not shown whole.
    """

    confusion: Tensor
    different: int
    panoptic: Tensor | None


class RowScores(NamedTuple):
    """What was counted on some rows; whole numbers, which add up exactly in any order.

    Attributes:
        forms: The trained form first.
        boundary: (K, 2) int64.
        calibration: (15, 3) int64.
        images: A line of the per-image table each.
        pixels: All pixels, labelled or not.
    """

    forms: list[FormCounts]
    boundary: np.ndarray
    calibration: Tensor
    images: list[dict[str, Any]]
    pixels: int


def add_row_scores(parts: Iterable[RowScores]) -> RowScores:
    """Add what was counted on several parts; images in the order of their rows."""
    total: RowScores | None = None
    for part in parts:
        if total is None:
            total = part
            continue
        forms = [
            FormCounts(
                a.confusion + b.confusion,
                a.different + b.different,
                None if a.panoptic is None or b.panoptic is None else a.panoptic + b.panoptic,
            )
            for a, b in zip(total.forms, part.forms, strict=True)
        ]
        total = RowScores(
            forms,
            total.boundary + part.boundary,
            total.calibration + part.calibration,
            [*total.images, *part.images],
            total.pixels + part.pixels,
        )
    assert total is not None, "a split has rows"
    return total._replace(images=sorted(total.images, key=lambda image: image["row"]))


def set_levels(loaded: LoadedModel, levels: int | None) -> None:
    """Let every neuron emit at most D spikes a step; what a spike counts for stays as trained.

    Args:
        loaded: The network; changed in place.
        levels: D; None leaves it as trained.
    """
    if levels is None:
        return
    for module in loaded.model.modules():
        rule = getattr(module, "rule", None)
        if rule is not None and hasattr(rule, "levels"):
            module.rule = rule._replace(levels=levels)  # pyright: ignore[reportAttributeAccessIssue]


class ImageWorker:
    """Scores rows of a split.

    Args:
        request: What to do.
    """

    def __init__(self, request: EvaluateRequest) -> None:
        self.request = request
        self.loaded = load_model(request.checkpoint, request.overrides, request.machine)
        set_levels(self.loaded, request.levels)
        self.config: ExperimentConfig = self.loaded.resolved.config
        self.dataset = open_data(self.config)
        self.forms = [open_form(self.loaded, choice) for choice in (FormChoice(), *request.others)]
        self._submission = None
        if request.submission is not None:
            kind, folder = request.submission
            self._submission = SubmissionWriter(kind, folder, self.loaded.space)

    @property
    def counts_segments(self) -> bool:
        """Whether PQ is counted: of a panoptic task, where images are shown whole."""
        return self.config.data.task == "panoptic" and self.request.inference.is_single

    def score_tasks(self, tasks: Iterable[Sequence[int]]) -> Iterator[RowScores]:
        """Score rows while the next ones are read."""

        def read(task: Sequence[int]) -> list[tuple[int, Row]]:
            return [(index, self.dataset.row(self.request.split, index)) for index in task]

        for lists in read_ahead(tasks, read):
            for rows in lists:
                yield self.score_rows(rows)

    def score_rows(self, rows: Sequence[tuple[int, Row]]) -> RowScores:
        """Score rows, those of equal sizes together.

        Args:
            rows: Number within the split, and row.
        """
        groups = groupby(rows, key=lambda item: (item[1].image.shape, item[1].label.shape))
        return add_row_scores(self._score_group(list(group)) for _, group in groups)

    def label_rows(self, indices: Sequence[int]) -> list[tuple[Row, np.ndarray]]:
        """Rows and their labels by the trained form, for pictures."""
        labelled = []
        for index in indices:
            row = self.dataset.row(self.request.split, index)
            scores, _ = self._show(self.forms[0], [row])
            labelled.append((row, scores.votes.argmax(1)[0].byte().cpu().numpy()))
        return labelled

    @torch.inference_mode()
    def _show(
        self, form: NetworkForm, rows: Sequence[Row]
    ) -> tuple[MergedScores, list[PanopticMap] | None]:
        """Scores at the size of the labels, and segments where they are counted."""
        images = [row.image for row in rows]
        size = (rows[0].label.shape[0], rows[0].label.shape[1])
        if form.model is None or not self.counts_segments:
            return score_images(form.view, images, self.request.inference, size), None
        model = form.model
        kept: list[Any] = []
        handle = model.register_forward_hook(lambda _, args, output: kept.append(output))
        try:
            inputs = prepare_images(form.view.transform, images).to(form.view.device)
            _, segments = predict_segments(model, inputs, size, self.loaded.space, self.config.data)
        finally:
            handle.remove()
        votes = semantic_logits(kept[0], (inputs.shape[-2], inputs.shape[-1]))
        votes = resize_scores(votes, size)
        return MergedScores(votes, to_probabilities(votes, joined=form.view.joined)), segments

    def _score_group(self, group: Sequence[tuple[int, Row]]) -> RowScores:
        rows = [row for _, row in group]
        space = self.loaded.space
        classes, ignored = len(space.classes), space.ignore_label
        targets = torch.from_numpy(np.stack([row.label for row in rows])).long()
        forms: list[FormCounts] = []
        trained = torch.zeros(0)
        calibration = torch.zeros(BINS, 3, dtype=torch.int64)
        per_image: list[Tensor] = []
        for number, form in enumerate(self.forms):
            scores, segments = self._show(form, rows)
            labels = scores.votes.argmax(1)
            counts = [
                confusion_counts(label.cpu(), target, num_classes=classes, ignore_label=ignored)
                for label, target in zip(labels, targets, strict=True)
            ]
            if not number:
                trained, per_image = labels, counts
                calibration = count_calibration(
                    scores.probabilities,
                    labels,
                    targets.to(labels.device),
                    ignore_label=ignored,
                )
            different = int((labels.cpu() != trained.cpu()).sum())
            confusion = torch.stack(counts).sum(0)
            forms.append(FormCounts(confusion, different, self._count_segments(rows, segments)))
        arrays = trained.byte().cpu().numpy()
        boundaries = [
            count_boundaries(label, row.label, num_classes=classes, ignore_label=ignored)
            for label, row in zip(arrays, rows, strict=True)
        ]
        images = []
        for (index, row), counts, boundary in zip(group, per_image, boundaries, strict=True):
            line = {"row": index, **describe_image(row.id, counts, boundary)}
            images.append({**line, "energy_mJ": self._measure_energy(row)})
        if self._submission is not None:
            for row, label in zip(rows, arrays, strict=True):
                self._submission.write(row.id, label)
        return RowScores(forms, sum(boundaries), calibration, images, targets.numel())  # pyright: ignore[reportArgumentType]

    def _count_segments(
        self, rows: Sequence[Row], segments: list[PanopticMap] | None
    ) -> Tensor | None:
        if segments is None:
            return None
        total = PanopticTotal(len(self.loaded.space.classes), torch.device("cpu"))
        labelled = [number_segments(row, self.loaded.space.ignore_label) for row in rows]
        total.add(segments, labelled)
        return total.sums

    @torch.inference_mode()
    def _measure_energy(self, row: Row) -> float | None:
        if not self.request.energy:
            return None
        view, model = self.forms[0].view, self.forms[0].model
        assert model is not None
        images = prepare_images(view.transform, [row.image]).to(view.device)
        return round(estimate_energy(model, images).total_mj, 6)


def build_image_worker(request: EvaluateRequest) -> Callable[[Sequence[int]], RowScores]:
    """Make the function that a process of a pool calls for every few rows."""
    worker = ImageWorker(request)
    return lambda task: next(worker.score_tasks([task]))
