"""The training of the GPU benchmark runs in the form whose steps were fastest."""

import json
import logging
from pathlib import Path

import pytest

from spikeseg.jobs.benchmark_gpu import training
from spikeseg.jobs.benchmark_gpu.step import Step
from spikeseg.platform.config.recipes import Resolved, load_experiment
from spikeseg.platform.train.step import Stepper


def choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speeds: dict[tuple[str, bool], float | str]
) -> tuple[Resolved, list[dict]]:
    """The chosen experiment and the rows, where a form's speed is a number, or a warning."""

    def time_steps(resolved: Resolved, _: Step) -> tuple[float, float]:
        trainer = resolved.config.trainer
        speed = speeds[trainer.memory_format, trainer.cuda_graph]
        if speed == 0:
            raise RuntimeError("out of luck")
        if isinstance(speed, str):
            logging.getLogger(Stepper.__module__).warning(speed)
            speed = 99.0
        return speed, 1.0

    monkeypatch.setattr(training, "_time_steps", time_steps)
    step = Step("training", "cpu", 60, tmp_path, True, None)
    resolved = load_experiment("camvid_gpu", ["data.path=/nowhere"])
    chosen, _, _ = training._choose_form(resolved, step)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    return chosen, [json.loads(line) for line in lines]


def test_the_fastest_form_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {("channels_last", False): 3.0, ("channels_last", True): 4.0}
    chosen, rows = choose(tmp_path, monkeypatch, {**speeds, ("contiguous", True): 5.0})
    trainer = chosen.config.trainer
    assert (trainer.memory_format, trainer.cuda_graph) == ("contiguous", True)
    assert rows[-1]["form"] == "CUDA graph, contiguous"
    assert [row["steps_s"] for row in rows[:-1]] == [3.0, 4.0, 5.0]


def test_a_form_that_fell_back_or_failed_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {("channels_last", False): 3.0, ("channels_last", True): "no graph: there is no GPU"}
    chosen, rows = choose(tmp_path, monkeypatch, {**speeds, ("contiguous", True): 0.0})
    assert not chosen.config.trainer.cuda_graph
    assert rows[-1]["form"] == "operation by operation, channels_last"
    assert rows[1]["warnings"] == ["no graph: there is no GPU"]
    assert not rows[2]["ok"]
    # The recipe itself asks for the graph.
    assert load_experiment("camvid_gpu", ["data.path=/nowhere"]).config.trainer.cuda_graph
