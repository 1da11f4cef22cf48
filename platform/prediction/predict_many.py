"""Predicts any number of sources, in this process, in several, or over a cluster."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..checkpoint.run_folder import find_checkpoint
from ..cluster.task_pool import PoolSize, TaskPool
from ..config.errors import ConfigError
from ..loading.read_ahead import group_equal, read_ahead
from ..runs.predict_images import Machine
from .coco import join_coco_files
from .outputs import PredictedImage, ResultWriter
from .predictor import Predictor, PredictSettings, open_predictor
from .results_table import Result, ResultsTable, result_key
from .sources import Source, SourceList, SourceReader
from .video import LABEL_ENDING, OVERLAY_ENDING, VideoReader, VideoWriter

_log = logging.getLogger(__name__)
# Images of one task of a pool: few enough that the last tasks end together.
_CHUNK = 8
# A file that cannot be read, predicted or written is a result, and the others go on.
_FAULTS = (ValueError, OSError, RuntimeError)


class PredictRequest(NamedTuple):
    """One call of `predict`.

    Attributes:
        checkpoint: A checkpoint's or a run's folder.
        output: Folder of the results.
        settings: What is made of an image.
        machine: What computes.
        batch: Images of one size in one forward pass.
        pool: Processes.
    """

    checkpoint: Path
    output: Path
    settings: PredictSettings
    machine: Machine = Machine()
    batch: int = 1
    pool: PoolSize = PoolSize()


class PredictSummary(NamedTuple):
    """What a call did.

    Attributes:
        done: Sources predicted now.
        kept: Sources whose results were there already.
        failed: Sources that could not be predicted.
        table: The table beside the results.
    """

    done: int
    kept: int
    failed: int
    table: Path


class _Counts:
    def __init__(self) -> None:
        self.done = self.kept = self.failed = 0

    @property
    def all(self) -> int:
        return self.done + self.kept + self.failed


def predict_many(
    request: PredictRequest,
    sources: SourceList,
    *,
    skip_existing: bool = False,
    table: Literal["csv", "parquet"] = "csv",
    on_result: Callable[[Result, int], None] = lambda result, number: None,
) -> PredictSummary:
    """Predict sources one after another; memory does not grow with their number.

    Args:
        request: What to do.
        sources: What to predict.
        skip_existing: Whether a source is left out whose files are there and were made by the same
            checkpoint and settings.
        table: Format of the table.
        on_result: Called with every result and how many sources came before it.

    Returns:
        Counts. A source that fails is counted, and stands with its error in the table.

    Raises:
        ConfigError: Where checkpoint, settings or folder are wrong; before the first source.
    """
    # Here too, so that a wrong request fails in one sentence before processes start.
    predictor = open_predictor(
        request.checkpoint, request.settings, request.output, request.machine
    )
    made_by = _describe_maker(request)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{request.output}: cannot be written ({error.strerror})") from error
    results = ResultsTable(request.output)
    counts = _Counts()
    finished: dict[bytes, None] = {}
    if skip_existing:
        finished = _read_finished(results)
    else:
        results.start()

    def list_wanted() -> Iterator[Source]:
        for source in sources:
            key = result_key(source.origin, source.name, source.stamp(), "".join(made_by))
            if key in finished:
                counts.kept += 1
            else:
                yield source

    for result in _predict_sources(request, predictor, list_wanted()):
        result = replace(result, checkpoint=made_by[0], settings=made_by[1])
        results.append(result)
        counts.failed += result.status == "failed"
        counts.done += result.status == "done"
        on_result(result, counts.all)
    if "coco" in request.settings.outputs:
        _join_coco(results, request.output, predictor)
    return PredictSummary(counts.done, counts.kept, counts.failed, results.write(table))


def _read_finished(results: ResultsTable) -> dict[bytes, None]:
    """Keys of the newest results whose files are all there."""
    return {
        result.key(): None
        for result in results.newest()
        if result.status == "done" and results.has_files(result)
    }


def _describe_maker(request: PredictRequest) -> tuple[str, str]:
    """Digests of the checkpoint, and of the settings that decide a file's content."""
    folder = find_checkpoint(request.checkpoint).path
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = request.settings
    described = {
        "outputs": sorted(settings.outputs),
        "tile": settings.tile,
        "form": settings.form.name,
        "exported": None
        if settings.form.exported is None
        else hashlib.sha256(settings.form.exported.read_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
    return manifest["digest"][:16], digest[:16]


def _join_coco(results: ResultsTable, output: Path, predictor: Predictor) -> None:
    parts = (
        (result.source, output / name)
        for result in results.newest()
        for name in result.files
        if name.endswith("_coco.json")
    )
    join_coco_files(parts, output / "coco.json", predictor.loaded.space)


def _predict_sources(
    request: PredictRequest, predictor: Predictor, sources: Iterable[Source]
) -> Iterator[Result]:
    size = request.pool
    if size.processes == 1 and not size.ray:
        yield from _Worker(request, predictor).predict(sources)
        return
    pool: TaskPool[list[Source], list[Result]] = TaskPool(
        functools.partial(_build_worker, request), size
    )
    for finished in pool.run(_split_chunks(sources)):
        yield from finished


def _split_chunks(sources: Iterable[Source]) -> Iterator[list[Source]]:
    """Chunks of a few images; a video is one of its own."""
    chunk: list[Source] = []
    for source in sources:
        if source.kind == "video":
            yield [source]
            continue
        chunk.append(source)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _build_worker(request: PredictRequest) -> Callable[[list[Source]], list[Result]]:
    predictor = open_predictor(
        request.checkpoint, request.settings, request.output, request.machine
    )
    worker = _Worker(request, predictor)
    return lambda sources: list(worker.predict(sources))


class _Read(NamedTuple):
    source: Source
    image: np.ndarray | None
    error: str


class _Worker:
    """Predicts sources with one loaded network."""

    def __init__(self, request: PredictRequest, predictor: Predictor) -> None:
        self._batch = request.batch
        self._output = request.output
        self._outputs = request.settings.outputs
        self._predictor = predictor
        self._writer = ResultWriter(request.output, self._outputs, predictor.loaded.space)
        self._reader = SourceReader(predictor.channels)

    def predict(self, sources: Iterable[Source]) -> Iterator[Result]:
        """Predict sources while the next ones are read."""
        groups = group_equal(read_ahead(sources, self._read), _describe_group, self._batch)
        for group in groups:
            yield from self._predict_group(group)

    def _read(self, source: Source) -> _Read:
        if source.kind == "video":
            return _Read(source, None, "")
        try:
            image = self._reader.read(source)
            self._predictor.require_size(image, source.origin)
        except _FAULTS as error:
            return _Read(source, None, str(error))
        return _Read(source, image, "")

    def _predict_group(self, group: list[_Read]) -> Iterator[Result]:
        first = group[0]
        if first.error:
            yield from (_fail(item.source, item.error) for item in group)
        elif first.source.kind == "video":
            yield from (self._predict_video(item.source) for item in group)
        elif first.image is not None and self._predictor.is_tiled(first.image):
            for item in group:
                yield self._finish([item], self._predict_tiled)[0]
        else:
            yield from self._finish(group, self._predict_whole)

    def _predict_tiled(self, group: list[_Read]) -> list[PredictedImage]:
        images = [item.image for item in group if item.image is not None]
        return [
            self._predictor.predict_tiles(image, item.source.name)
            for image, item in zip(images, group, strict=True)
        ]

    def _predict_whole(self, group: list[_Read]) -> list[PredictedImage]:
        images = [item.image for item in group if item.image is not None]
        return self._predictor.predict_batch(images, [item.source.name for item in group])

    def _finish(
        self, group: list[_Read], predict: Callable[[list[_Read]], list[PredictedImage]]
    ) -> list[Result]:
        """Predict and write images; where a batch fails, its images are tried one by one."""
        try:
            predicted = predict(group)
        except _FAULTS as error:
            if len(group) > 1:
                return [result for item in group for result in self._finish([item], predict)]
            return [_fail(group[0].source, str(error))]
        results = []
        for item, made in zip(group, predicted, strict=True):
            try:
                files = self._writer.write(item.source.name, made)
            except _FAULTS as error:
                results.append(_fail(item.source, str(error)))
                continue
            height, width = made.label.shape
            results.append(_succeed(item.source, files, (height, width)))
        return results

    def _predict_video(self, source: Source) -> Result:
        endings = [
            ending
            for ending, output in ((LABEL_ENDING, "label"), (OVERLAY_ENDING, "overlay"))
            if output in self._outputs
        ]
        paths = {ending: self._writer.path(source.name, ending) for ending in endings}
        try:
            if not paths:
                raise ConfigError(f"{source.origin}: of a video label and overlay can be written")
            reader = VideoReader(source.path)
            facts = reader.facts
            frames = 0
            with VideoWriter(paths, facts, self._predictor.loaded.space) as writer:
                for batch in group_equal(
                    read_ahead(reader, lambda frame: frame), lambda frame: frame.shape, self._batch
                ):
                    for frame, label in self._label_frames(batch, source):
                        writer.write(frame, label)
                    frames += len(batch)
        except _FAULTS as error:
            return _fail(source, str(error))
        files = [str(path.relative_to(self._output)) for path in paths.values()]
        result = _succeed(source, files, (facts.height, facts.width))
        return replace(result, frames=frames)

    def _label_frames(
        self, frames: list[np.ndarray], source: Source
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self._predictor.require_size(frames[0], source.origin)
        if self._predictor.is_tiled(frames[0]):
            predicted = [self._predictor.predict_tiles(frame, source.name) for frame in frames]
        else:
            predicted = self._predictor.predict_batch(frames, [source.name] * len(frames))
        for frame, made in zip(frames, predicted, strict=True):
            if made.probabilities is not None:
                made.probabilities.unlink()
            yield frame, made.label


def _describe_group(item: _Read) -> tuple[object, ...]:
    """What images of one forward pass share."""
    shape = None if item.image is None else item.image.shape
    return shape, item.source.kind == "video", bool(item.error)


def _fail(source: Source, error: str) -> Result:
    _log.debug("%s: %s", source.origin, error)
    return Result(
        source=source.origin,
        name=source.name,
        status="failed",
        error=error.splitlines()[0] if error else "unknown",
        stamp=source.stamp(),
    )


def _succeed(source: Source, files: list[str], size: tuple[int, int]) -> Result:
    return Result(
        source=source.origin,
        name=source.name,
        files=files,
        height=size[0],
        width=size[1],
        frames=1,
        stamp=source.stamp(),
    )
