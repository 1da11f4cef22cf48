"""The first step is looked at without a trace, and layers that fall silent are named once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import experiment, pack_shapes

from spikeseg.model.accounting.firing import FiringRow
from spikeseg.platform.checkpoint.checkpoint import Evaluation
from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.train.health import HealthWatch, describe_no_learning, wants_first_step
from spikeseg.platform.train.loop import Training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


class Record:
    """A recorder that keeps files."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        del step, values

    def image(self, name: str, step: int, png: bytes) -> None:
        del name, step, png

    def picture(self, path: str, png: bytes) -> None:
        self.files[path] = png

    def text(self, path: str, content: str) -> None:
        self.files[path] = content

    def sync(self) -> None:
        pass


def small(data: Path, first_step: bool | None, **trainer: Any) -> ExperimentConfig:
    given = {"max_steps": 2, "micro_batches": 1, "micro_batch_size": 2, "evaluate_every": 1}
    tree = json.loads(experiment(data, **{**given, **trainer}).model_dump_json())
    tree["tracking"]["first_step"] = first_step
    return ExperimentConfig.model_validate_json(json.dumps(tree))


def trained(
    config: ExperimentConfig, folder: Path, steps: int = 2
) -> tuple[Training, Record, list[str]]:
    run = RunFolder(folder)
    run.claim()
    lines: list[str] = []
    record = Record()
    training = Training(config, run, group=OneWorker(), recorder=record, progress=lines.append)
    training.start()
    for evaluation in training.evaluations():
        if evaluation.step >= steps:
            break
    assert training._writer is not None
    training._writer.close()
    return training, record, lines


def test_looking_at_the_first_step_leaves_no_trace_in_the_training(
    data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    random = torch.get_rng_state()
    made = {}
    for looked in (False, True):
        torch.set_rng_state(random)
        training, record, lines = trained(small(data, looked), tmp_path / str(looked))
        made[looked] = training.state.state_dict()
        made[looked].pop("state")
        assert ("figures/first_step.png" in record.files) is looked
        assert any(line.startswith("step 0: gradient norm") for line in lines) is looked
    for file, tensors in made[False].items():
        for key, value in tensors.items():
            assert torch.equal(value, made[True][file][key]), (file, key)
    rows = json.loads(record.files["tables/first_step.json"])
    assert {"rate", "dead", "saturated", "levels"} <= rows["neurons"][0].keys()
    assert len(rows["neurons"]) > 30 and all(row["norm"] >= 0 for row in rows["gradients"])
    assert (tmp_path / "True" / "figures" / "first_step.png").read_bytes()[1:4] == b"PNG"


def test_a_resumed_training_does_not_look_at_it_again(data: Path, tmp_path: Path) -> None:
    config = small(data, True)
    trained(config, tmp_path / "run", steps=1)
    _, record, lines = trained(config, tmp_path / "run")
    assert "figures/first_step.png" not in record.files
    assert not any(line.startswith("step 0") for line in lines)


@pytest.mark.parametrize(
    ("given", "steps", "expected"),
    [(None, 99, False), (None, 100, True), (True, 1, True), (False, 1000, False)],
)
def test_short_trainings_are_looked_at_only_where_that_is_asked(
    data: Path, given: bool | None, steps: int, expected: bool
) -> None:
    assert wants_first_step(small(data, given, max_steps=steps)) is expected


def row(name: str, dead: float = 0.0, saturated: float = 0.0) -> FiringRow:
    return FiringRow(name, rate=4 * saturated, dead=dead, saturated=saturated, levels=4)


def test_layers_that_fall_silent_are_named_once_and_counted(data: Path) -> None:
    lines: list[str] = []
    watch = HealthWatch(small(data, False), lines.append)

    def at(step: int) -> list[Evaluation]:
        return [Evaluation(step, {})]

    watch.check([row("a"), row("b")], at(1))
    assert lines == []
    watch.check([row("a", dead=1.0), row("b")], at(2))
    assert lines == [
        "step 2: neuron layers newly 1 dead (never fired): a; of 2 in all 1 dead, 0 saturated"
    ]
    watch.check([row("a", dead=1.0), row("b")], at(3))
    assert len(lines) == 1
    watch.check([row("a"), row("b", saturated=1.0)], at(4))
    assert "saturated (always at D): b" in lines[-1] and "dead (never" not in lines[-1]
    watch.check([row("a", dead=1.0), row("b")], at(5))
    assert "dead (never fired): a" in lines[-1]
    watch.check([row(f"layer{i}", dead=1.0) for i in range(7)], at(6))
    assert "7 dead" in lines[-1] and "layer3 and 3 more" in lines[-1]


def test_an_evaluation_records_every_neuron_layer(data: Path, tmp_path: Path) -> None:
    _, record, lines = trained(small(data, False), tmp_path / "run", steps=1)
    rows = json.loads(record.files["tables/neurons/00000001.json"])
    dead = [entry["name"] for entry in rows if entry["dead"] == 1.0]
    named = [line for line in lines if "newly" in line]
    assert bool(dead) == bool(named)
    if dead:
        assert dead[0] in named[0]


LOW = {"val/mIoU": 8.0, "val/baseline_majority": 7.2, "val/baseline_position": 7.5}


def told(config: ExperimentConfig, *history: tuple[int, dict[str, float]]) -> str | None:
    return describe_no_learning([Evaluation(step, metrics) for step, metrics in history], config)


def test_a_network_that_does_not_learn_says_so_once_after_a_tenth_of_the_steps(data: Path) -> None:
    config = small(data, False, max_steps=100)
    line = told(config, (5, LOW), (10, LOW))
    assert line is not None and line.startswith(
        "step 10 of 100: val mIoU is 8.0 (majority 7.2, position 7.5, degenerate), no better"
    )
    assert told(config, (5, LOW)) is None
    assert told(config, (5, LOW), (10, LOW), (20, LOW)) is None
    assert told(config, (5, LOW), (10, {**LOW, "val/mIoU": 8.6})) is None
    assert told(config, (10, {"val/mIoU": 8.0})) is None


@pytest.mark.parametrize(
    ("field", "changes", "metrics"),
    [
        ("trainer.ema_start (constant)", {"trainer": {"ema_decay": 0.999}}, {}),
        ("optimizer.warmup_steps (50)", {"optimizer": {"warmup_steps": 50}}, {}),
        ("model.neuron.threshold (1.0)", {}, {"snn/dead_layers": 0.4}),
        ("model.neuron.levels (4)", {}, {"snn/saturated_fraction": 0.95}),
        ("model.query.matching (hungarian)", {"model": {"decoder": "query"}}, {}),
        ("optimizer.lr (0.002)", {}, {}),
        ("loss.class_balance (0)", {"optimizer": {"lr": 8e-3}}, {}),
        (
            "optimizer.lr (0.01) and trainer",
            {"optimizer": {"lr": 0.01}, "loss": {"class_balance": 0.5}},
            {},
        ),
    ],
)
def test_the_likeliest_field_is_named(
    data: Path, field: str, changes: dict[str, dict[str, Any]], metrics: dict[str, float]
) -> None:
    tree = small(data, False, max_steps=100, ema_decay=None).model_dump(mode="json")
    tree["model"]["decoder"] = "fpn"
    for section, values in changes.items():
        tree[section] |= values
    config = ExperimentConfig.model_validate_json(json.dumps(tree))
    line = told(config, (10, {**LOW, **metrics}))
    assert line is not None and f"Look at {field}" in line


def test_the_evaluation_of_an_untrained_network_warns(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One step at a rate next to nothing: whatever the seed, nothing is learned."""
    tree = small(data, False).model_dump(mode="json")
    tree["optimizer"]["lr"] = 1e-12
    _, _, lines = trained(
        ExperimentConfig.model_validate_json(json.dumps(tree)), tmp_path / "run", steps=1
    )
    (line,) = [line for line in lines if "no better than an answer that ignores" in line]
    assert "degenerate" in line and line in caplog.text
    (scored,) = [line for line in lines if line.startswith("step 1: val mIoU")]
    assert "(majority " in scored and "degenerate)" in scored
