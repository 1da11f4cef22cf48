"""A training that an earlier version left is continued, and repeated from its configuration."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import spikeseg
from safetensors import safe_open
from safetensors.torch import load_file
from stored_examples import Stored


def steps_of(journal: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and values of every record of numbers, but those of the machine."""
    lines = (journal / "records.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "metrics"]
    found = []
    for record in records:
        kept = {k: v for k, v in record["values"].items() if not k.startswith("system/")}
        if kept:
            found.append((record["step"], kept))
    return found


def values_of(journal: Path, name: str) -> dict[int, float]:
    """Step -> value of one metric, which must be there once a step."""
    pairs = [(step, values[name]) for step, values in steps_of(journal) if name in values]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def ledger(run: Path) -> dict[tuple[int, int], list[str]]:
    """Step and micro-batch -> rows, a later attempt over an earlier one."""
    lines = [
        line for path in sorted(run.glob("ledger/*")) for line in path.read_text().splitlines()
    ]
    return {(step, number): rows for step, number, rows in map(json.loads, lines)}


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, item in tree.items() for k, v in leaves(item, f"{prefix}.{key}").items()}


def shapes(checkpoint: Path) -> dict[str, dict[str, list[int]]]:
    """File -> tensor -> shape."""
    found = {}
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found[path.name] = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    return found


@pytest.fixture
def resumed(stored: Stored, capsys: pytest.CaptureFixture[str]) -> Stored:
    """The killed training, brought to its end."""
    before = steps_of(stored.run / "journal")
    storage = ("--storage", str(stored.storage))
    ran = spikeseg(capsys, "train", "--resume", stored.run.name, stored.data_here, *storage)
    assert ran.code == 0, ran.err
    assert f"attempt 2 of {stored.run.name}: resumed at step 40" in ran.out
    assert steps_of(stored.run / "journal")[: len(before)] == before
    return stored


def test_a_killed_training_goes_on_with_the_rows_rates_and_losses_that_were_next(
    resumed: Stored,
) -> None:
    journal, expected = resumed.run / "journal", resumed.expected
    rows = {(step, number): ids for step, number, ids in expected["rows"]}
    assert len(rows) == 88
    assert ledger(resumed.run) == rows

    rates = {step: expected["metrics"][str(step)]["train/lr"] for step in range(1, 45)}
    assert values_of(journal, "train/lr") == pytest.approx(rates, rel=1e-12)
    # The last bits, and what a spike more or less makes of them, are the processor's.
    losses = {step: expected["metrics"][str(step)]["train/loss"] for step in range(1, 45)}
    assert values_of(journal, "train/loss") == pytest.approx(losses, rel=0.05)

    result = json.loads((resumed.run / "result.json").read_text())
    assert result["best_step"] in (40, 44)
    assert {"val/mIoU", "test/mIoU", "energy/mJ"} <= set(result["metrics"])
    assert sum(map(sum, result["confusion"])) == sum(map(sum, expected["result"]["confusion"]))


@pytest.mark.slow
def test_a_continued_training_keeps_every_setting_and_every_tensor(
    resumed: Stored, tmp_path: Path
) -> None:
    untouched = Stored.copied(resumed.version, tmp_path / "untouched")
    now = leaves(yaml.safe_load((resumed.run / "config.yaml").read_text()))
    before = leaves(yaml.safe_load((resumed.storage.parent / "recipe.yaml").read_text()))
    changed = {key: now.get(key) for key, value in before.items() if now.get(key) != value}
    assert changed == {".data.path": str(resumed.data)}

    checkpoints = sorted(resumed.run.glob("checkpoints/step-*"))
    assert checkpoints[-1].name == "step-00000044"
    assert shapes(checkpoints[-1]) == shapes(untouched.checkpoint)
    # AdamW counts its own steps: from 0 again, its averages would not have been loaded.
    moments = load_file(checkpoints[-1] / "optimizer.safetensors")
    steps = {float(value) for key, value in moments.items() if key.endswith("/step")}
    assert steps == {44.0}


def test_the_recorded_configuration_alone_starts_the_same_training(
    stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = tmp_path / "config.yaml"
    recorded.write_text((stored.run / "config.yaml").read_text())
    short = ("trainer.max_steps=2", "trainer.evaluate_every=2", "optimizer.decay_steps=44")
    given = (str(recorded), stored.data_here, *short, "--storage", str(stored.storage))
    ran = spikeseg(capsys, "train", *given)
    assert ran.code == 0, ran.err

    (run,) = {path for path in stored.storage.glob("stored-*") if path != stored.run}
    (checkpoint,) = run.glob("checkpoints/step-*")
    assert shapes(checkpoint) == shapes(stored.checkpoint)
    rows = {(step, number): ids for step, number, ids in stored.expected["rows"] if step < 2}
    assert ledger(run) == rows
    # What comes later depends on the processor's rounding: the rate of step 1 is next to 0.
    for name, tolerance in (("train/lr", 1e-12), ("train/loss", 1e-3)):
        first = {step: stored.expected["metrics"][str(step)][name] for step in (1, 2)}
        assert values_of(run / "journal", name) == pytest.approx(first, rel=tolerance)
