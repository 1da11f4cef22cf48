"""Tables of runs: seeds together, rounded, bold only beyond the spread, in three formats."""

import csv
import io
import json
from pathlib import Path

import pytest

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.recipes import dump, load_experiment
from spikeseg.platform.runs.run_table import group_runs, make_table
from spikeseg.platform.runs.table_text import write_csv, write_latex, write_markdown


def write_run(storage: Path, name: str, score: float, *overrides: str) -> None:
    folder = storage / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(load_experiment("shapes_tiny", overrides).config))
    metrics = {"val/mIoU": score, "val/baseline_position": 7.8, "energy/rule": 2.0}
    metrics["energy/mJ"] = 0.0312 + score / 1e5
    (folder / "result.json").write_text(json.dumps({"best_step": 3, "metrics": metrics}))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for seed, score in enumerate((60.0, 61.0, 62.0)):
        write_run(tmp_path, f"four-{seed}", score, f"seed={seed}")
    for seed, score in enumerate((40.0, 41.5, 42.0)):
        write_run(tmp_path, f"one-{seed}", score, f"seed={seed}", "model.neuron.levels=1")
    return tmp_path


def every(storage: Path) -> list[str]:
    return sorted(folder.name for folder in storage.iterdir())


def test_seeds_of_one_experiment_are_one_row_with_mean_and_interval(storage: Path) -> None:
    table = make_table(group_runs(every(storage), storage))
    assert [row[1].text for row in table.rows] == ["3", "3"]
    column = table.head.index("val/mIoU")
    assert [row[column].text for row in table.rows] == ["61.0 ± 2.5", "41.2 ± 2.6"]
    assert [row[column].best for row in table.rows] == [True, False]
    assert "D" in table.head


def test_nothing_is_bold_with_one_seed_or_within_the_spread(storage: Path) -> None:
    alone = make_table(group_runs(["four-0", "one-0"], storage))
    assert not any(cell.best for row in alone.rows for cell in row)
    for seed, score in enumerate((59.0, 61.0, 63.5)):
        write_run(storage, f"eight-{seed}", score, f"seed={seed}", "model.neuron.levels=8")
    close = make_table(group_runs(every(storage), storage), ["val/mIoU"])
    assert not any(cell.best for row in close.rows for cell in row)


def test_the_training_by_which_a_sweep_chose_a_point_is_not_in_its_mean(tmp_path: Path) -> None:
    sweep = tmp_path / "found"
    for number, (seed, levels, score) in enumerate(
        [(1, 4, 70.0), (1, 2, 50.0), (2, 4, 60.0), (3, 4, 62.0)]
    ):
        fields = (f"seed={seed}", f"model.neuron.levels={levels}")
        write_run(sweep / "trials", str(number), score, *fields)
    recipe = {"objectives": [{"metric": "val/mIoU", "direction": "maximize"}]}
    for replicates, expected in (
        ({"seeds": 2, "best": 1}, {4: [60.0, 62.0], 2: [50.0]}),
        ({"seeds": 3}, {4: [60.0, 62.0, 70.0], 2: [50.0]}),
    ):
        plan = {"recipe": {**recipe, "replicates": replicates}, "base": "name: a\nseed: 1\n"}
        (sweep / "plan.json").write_text(json.dumps(plan))
        groups = group_runs(["found"], tmp_path)
        found = {g.fields["model.neuron.levels"]: sorted(g.metrics["val/mIoU"]) for g in groups}
        assert found == expected
        left_out = [word for group in groups for word in group.left_out]
        assert left_out == (["found/0"] if "best" in replicates else [])


def test_a_run_of_a_version_without_a_field_is_the_same_experiment(storage: Path) -> None:
    path = storage / "four-0" / "config.yaml"
    new = path.read_text()
    old = "".join(line for line in new.splitlines(True) if "memory_format" not in line)
    assert old != new
    path.write_text(old)
    table = make_table(group_runs(every(storage), storage))
    assert [row[1].text for row in table.rows] == ["3", "3"]
    assert "memory_format" not in table.head


def test_other_data_or_another_rate_is_another_row(storage: Path) -> None:
    write_run(storage, "rate", 50.0, "optimizer.lr=0.1")
    write_run(storage, "data", 50.0, "data.path=/elsewhere/other")
    write_run(storage, "moved", 50.0, "data.path=/elsewhere/shapes", "seed=9")
    groups = group_runs(["four-0", "rate", "data", "moved"], storage)
    assert [group.words for group in groups] == [["four-0", "moved"], ["rate"], ["data"]]


def test_columns_are_metrics_fields_and_ends_of_keys(storage: Path) -> None:
    table = make_table(group_runs(["one-0"], storage), ["D", "lr", "energy/mJ"])
    assert table.head == ["run", "seeds", "D", "lr", "energy/mJ"]
    assert [cell.text for cell in table.rows[0]] == ["one-0", "1", "1", "0.008", "0.0316"]


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("val/mIuo", "did you mean 'val/mIoU'"),
        ("levels", "several fields end so: model.neuron.levels, model.backbone.levels"),
    ],
)
def test_an_unknown_column_is_refused(storage: Path, column: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"--columns: {column}: ") as caught:
        make_table(group_runs(["one-0"], storage), [column])
    assert sentence in str(caught.value)


def test_every_format_has_the_same_numbers(storage: Path) -> None:
    table = make_table(group_runs(every(storage), storage), ["D", "val/mIoU"])
    assert "| **61.0 ± 2.5** |" in write_markdown(table)
    assert r"& \textbf{61.0 $\pm$ 2.5} \\" in write_latex(table)
    rows = list(csv.reader(io.StringIO(write_csv(table))))
    assert rows[0] == ["run", "seeds", "D", "val/mIoU", "val/mIoU ±"]
    assert rows[1] == ["four-0 and 2 more", "3", "4", "61.0", "2.5"]


def test_latex_takes_no_name_for_markup(storage: Path) -> None:
    write_run(storage, "a_b", 50.0)
    assert r"a\_b & 1 & 4 \\" in write_latex(make_table(group_runs(["a_b"], storage), ["D"]))
