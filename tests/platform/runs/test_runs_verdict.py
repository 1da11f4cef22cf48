"""The verdict over runs: what differs, how much, per class, and whether seeds explain it."""

import json
from pathlib import Path

import pytest

from spikeseg.platform.config.recipes import dump, load_experiment
from spikeseg.platform.runs.run_table import RunGroup, group_runs
from spikeseg.platform.runs.runs_verdict import compare_classes, write_verdict


def write_run(storage: Path, name: str, score: float, bar: float, *overrides: str) -> None:
    folder = storage / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(load_experiment("shapes_tiny", overrides).config))
    result = {
        "best_step": 3,
        "metrics": {"val/mIoU": score, "val/baseline_majority": 7.8},
        "classes": [{"class": "disc", "IoU": 50.0}, {"class": "bar", "IoU": bar}],
    }
    (folder / "result.json").write_text(json.dumps(result))


def groups_of(storage: Path, *names: str) -> list[RunGroup]:
    return group_runs(names, storage)


def test_one_seed_each_cannot_tell(tmp_path: Path) -> None:
    write_run(tmp_path, "four", 61.0, 70.0)
    write_run(tmp_path, "one", 41.0, 30.0, "model.neuron.levels=1")
    groups = groups_of(tmp_path, "one", "four")
    differs, compared, baselines = write_verdict(groups)
    assert differs == "What differs: model.neuron.levels: 1, 4."
    assert compared.startswith("val/mIoU: four 61.0, one 41.0, difference +20.0. Whether that is")
    assert compared.endswith("cannot be told from one seed.")
    assert baselines == "Answers that ignore the image score on val: majority 7.8."
    rows = compare_classes(groups)
    assert [row.name for row in rows] == ["bar", "disc"]
    assert rows[0].difference is not None
    assert rows[0].difference.value == 40.0 and not rows[0].difference.known


@pytest.mark.parametrize(("other", "worth"), [(41.0, "more than"), (60.5, "within")])
def test_several_seeds_decide(tmp_path: Path, other: float, worth: str) -> None:
    for seed in range(3):
        write_run(tmp_path, f"four-{seed}", 61.0 + seed, 70.0 + seed, f"seed={seed}")
        overrides = (f"seed={seed}", "model.neuron.levels=1")
        write_run(tmp_path, f"one-{seed}", other + seed, 30.0 + seed, *overrides)
    names = sorted(folder.name for folder in tmp_path.iterdir())
    groups = groups_of(tmp_path, *names)
    assert f"{worth} the spread of seeds" in write_verdict(groups)[1]
    assert all(row.difference is None or row.difference.known for row in compare_classes(groups))


def test_equal_scores_are_a_tie(tmp_path: Path) -> None:
    write_run(tmp_path, "four", 61.0, 70.0)
    write_run(tmp_path, "one", 61.01, 70.0, "model.neuron.levels=1")
    assert write_verdict(groups_of(tmp_path, "one", "four"))[1].endswith("difference 0.0: a tie.")


def test_several_differing_fields_are_no_cause(tmp_path: Path) -> None:
    write_run(tmp_path, "four", 61.0, 70.0)
    write_run(tmp_path, "one", 41.0, 70.0, "model.neuron.levels=1", "optimizer.lr=0.1")
    text = write_verdict(groups_of(tmp_path, "one", "four"))[0]
    assert text.endswith("so no difference is due to one field alone.")


def test_runs_without_a_common_score_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path, "four", 61.0, 70.0)
    write_run(tmp_path, "one", 41.0, 70.0, "model.neuron.levels=1")
    (tmp_path / "one" / "result.json").unlink()
    assert write_verdict(groups_of(tmp_path, "one", "four"))[-1].startswith("No score")
