"""The benchmark of the loop compares like with like and says how sure it is."""

from pathlib import Path

import pytest
import torch
from tiny import experiment, pack_shapes

from spikeseg.jobs.benchmark import loop as overhead
from spikeseg.jobs.benchmark.loop import PairedRatio, loop_overhead, strict_cost, table
from spikeseg.platform.config.recipes import Resolved


def test_ratios_are_taken_within_pairs_and_the_first_pair_is_thrown_away() -> None:
    times = iter([0, 9, 9, 99, 0, 1, 1, 3, 3, 7, 7, 9])
    calls: list[str] = []
    row = overhead._in_turns(
        lambda: calls.append("a"),
        lambda: calls.append("b"),
        pairs=2,
        each=1,
        clock=lambda: float(next(times)),
    )
    assert calls == ["b", "a", "a", "b", "b", "a"]
    # Kept: first 1 s and second 2 s, then second 4 s and first 2 s.
    assert row == PairedRatio((1.5, 3.0), 2.0, 2.0, 2.0, 2)


def test_both_loops_train_the_same_model_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(pack_shapes(tmp_path / "data"), decoder="fpn", micro_batches=2)
    weights: list[torch.Tensor] = []
    training = overhead.Training.__init__

    def building(self: overhead.Training, *given: object, **named: object) -> None:
        training(self, *given, **named)  # pyright: ignore[reportArgumentType]
        weights.extend(list(self.state.model.parameters()))

    monkeypatch.setattr(overhead.Training, "__init__", building)
    row = loop_overhead(Resolved(config, {}), pairs=1, steps=1)
    assert row.pairs == 1 and min(row.seconds) > 0
    half = len(weights) // 2
    assert half > 0
    for ours, bare in zip(weights[:half], weights[half:], strict=True):
        assert torch.equal(ours, bare)


def test_strict_cost_needs_no_more_workers_than_micro_batches(tmp_path: Path) -> None:
    config = experiment(tmp_path, micro_batches=2)
    with pytest.raises(ValueError, match=r"workers must not exceed micro_batches \(2\), got 3"):
        strict_cost(Resolved(config, {}), workers=3, pairs=1)


def test_the_table_has_ratio_and_interval() -> None:
    lines = table({"a / b": PairedRatio((0.01, 0.0102), 1.02, 1.01, 1.03, 30)})
    assert "1.020" in lines[1] and "1.010 to 1.030 (30 pairs)" in lines[1]
