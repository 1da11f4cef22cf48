"""Trainings of seconds in this process, and what they tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny import experiment

from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.train.faults.preemption import Notice
from spikeseg.platform.train.loop import Training


class Record:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.values: dict[int, Mapping[str, float]] = {}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.values[step] = {**self.values.get(step, {}), **values}

    def image(self, name: str, step: int, png: bytes) -> None:
        del name, step, png

    def picture(self, path: str, png: bytes) -> None:
        del path, png

    def text(self, path: str, content: str) -> None:
        self.texts[path] = content

    def sync(self) -> None:
        pass


def training(
    config: ExperimentConfig,
    folder: Path,
    record: Record | None = None,
    notice: Notice | None = None,
) -> tuple[Training, list[str]]:
    run = RunFolder(folder)
    run.claim()
    lines: list[str] = []
    made = Training(
        config, run, group=OneWorker(), recorder=record, progress=lines.append, notice=notice
    )
    made.start()
    return made, lines


def trained(
    config: ExperimentConfig,
    folder: Path,
    record: Record | None = None,
    notice: Notice | None = None,
) -> list[str]:
    made, lines = training(config, folder, record, notice)
    for _ in made.evaluations():
        pass
    return lines


def small(data: Path, **trainer: Any) -> ExperimentConfig:
    defaults = {"max_steps": 5, "micro_batches": 2, "micro_batch_size": 2, "evaluate_every": 2}
    return experiment(data, decoder="fpn", **{**defaults, **trainer})


def files(folder: Path, step: int = 5) -> dict[str, bytes]:
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    return {path.name: path.read_bytes() for path in sorted(checkpoint.glob("*.safetensors"))}
