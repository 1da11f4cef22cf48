"""What val chose is what test is scored with, what is evaluated is averaged, in every reader."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from recorded_training import small, training
from tiny import pack_shapes
from torch import Tensor

from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.recipes import Resolved, dump
from spikeseg.platform.evaluation.scores import EvaluatedModel, score_split
from spikeseg.platform.runs.predict_images import load_model
from spikeseg.platform.train import loop, worker
from spikeseg.platform.train.faults.preemption import Notice
from spikeseg.platform.train.tracked_training import TrackedRun


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


class Scored(NamedTuple):
    """One call of `score_split`: the split, and the weights that it was called with."""

    split: str
    weights: dict[str, Tensor]


def fix_scores(monkeypatch: pytest.MonkeyPatch, mious: list[float]) -> list[Scored]:
    """Give the evaluations on val these mIoUs, one after the other; every call of a scoring."""
    scored: list[Scored] = []
    remaining = iter(mious)

    def scoring(evaluated: EvaluatedModel, split: str, **options: Any) -> Any:
        weights = {k: v.detach().clone() for k, v in evaluated.model.state_dict().items()}
        scored.append(Scored(split, weights))
        metrics, counts = score_split(evaluated, split, **options)
        return ({**metrics, "val/mIoU": next(remaining)} if split == "val" else metrics), counts

    monkeypatch.setattr(loop, "score_split", scoring)
    return scored


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("mious", "best", "decay"),
    [
        ([10.0, 30.0, 20.0], 4, 0.5),
        ([30.0, 10.0, 20.0], 2, 0.5),
        ([10.0, 20.0, 20.0], 4, 0.5),
        ([10.0, 30.0, 20.0], 4, None),
    ],
    ids=["in the middle", "first", "earliest of equals", "without averages"],
)
def test_test_is_scored_with_the_weights_that_val_chose(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mious: list[float],
    best: int,
    decay: float | None,
) -> None:
    # Where few are kept, the best one stays all the same; where all are, none is missed.
    keep = 1 if best == 2 else 3
    config = small(data, max_steps=6, ema_decay=decay, keep_checkpoints=keep, workers=0)
    scored = fix_scores(monkeypatch, mious)
    monkeypatch.setattr(worker, "_draw", lambda *_: None)
    run = RunFolder(tmp_path / "run")
    run.write("config.yaml", dump(config))
    tracked = TrackedRun(Resolved(config, {}), run.path, {}, parent="sweep")
    worker.run_worker(tracked, OneWorker(), progress=lambda line: None, notice=Notice())

    assert [call.split for call in scored] == ["val", "val", "val", "test"]
    result = json.loads((run.path / "result.json").read_text())
    assert result["best_step"] == best
    assert result["metrics"]["val/mIoU"] == max(mious)
    chosen = run.at(best)
    name = "model" if decay is None else "ema"
    assert equal(scored[-1].weights, chosen.tensors(name))
    assert equal(scored[-1].weights, scored[best // 2 - 1].weights)
    assert not equal(scored[-1].weights, scored[best // 2 % 3].weights)
    # What `evaluate`, `predict` and `energy` load is what was scored.
    loaded = load_model(run.path)
    assert loaded.path == chosen.path
    assert equal(dict(loaded.model.state_dict()), scored[-1].weights)
    if decay is not None:
        assert not equal(dict(loaded.model.state_dict()), chosen.tensors("model"))


def test_evaluations_measure_the_averaged_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = fix_scores(monkeypatch, [1.0, 2.0])
    measured: list[EvaluatedModel] = []
    measure: Callable[[EvaluatedModel], Any] = loop.measure_energy_and_health

    def measuring(evaluated: EvaluatedModel) -> Any:
        measured.append(evaluated)
        return measure(evaluated)

    monkeypatch.setattr(loop, "measure_energy_and_health", measuring)
    made, _ = training(small(data, max_steps=4, evaluate_every=2), tmp_path / "run")
    steps = [done.step for done in made.evaluations()]
    assert steps == [2, 4]
    for step, call, energy in zip(steps, scored, measured, strict=True):
        kept = made.run.at(step)
        assert equal(call.weights, kept.tensors("ema"))
        assert not equal(call.weights, kept.tensors("model"))
        assert made.state.average is not None
        assert energy.model is made.state.average.module
