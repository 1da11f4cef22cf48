"""Groups of a sweep with replicates: what its tables, its page and its best trial say."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from toy_sweep import DOWN, UP, listed, run_toys, toy_plan

from spikeseg.platform.runs.find_run import find_run
from spikeseg.platform.runs.list_runs import list_runs
from spikeseg.platform.search import sweep_figures
from spikeseg.platform.search.stored_sweep import read_sweep
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_file.plan import SweepPlan
from spikeseg.platform.search.sweep_groups import (
    describe_groups,
    describe_leader,
    group_rows,
    measure_groups,
)
from spikeseg.platform.search.sweep_page import Page, render_sweep
from spikeseg.platform.search.sweep_results import write_sweep_report
from spikeseg.platform.search.sweep_standing import best_trial, front_trials, score_sweep
from spikeseg.platform.tracking.metric_table import metric_label
from spikeseg.platform.tracking.tracking_uri import tracking_uri


def records_of(values: dict[int, list[tuple[float, float]]]) -> dict[int, TrialRecord]:
    """Trials of configurations by the level D that is their name, values by seed from 0 on."""
    records: dict[int, TrialRecord] = {}
    for level, pairs in values.items():
        first = len(records)
        for seed, pair in enumerate(pairs):
            number = len(records)
            point = {"model.neuron.levels": level, "seed": seed}
            original = None if seed == 0 else first
            records[number] = TrialRecord(
                number, "COMPLETE", point, values=pair, original=original, step=4
            )
    return records


@pytest.fixture
def plan(tmp_path: Path) -> SweepPlan:
    section = {"seeds": 3, "stop_error": None}
    return toy_plan(tmp_path, **listed(1, 2, 4), replicates=section, objectives=[UP, DOWN])


LUCKY = {
    1: [(40.0, 1.0), (41.0, 1.0), (40.5, 1.0)],
    2: [(60.0, 2.0), (30.0, 2.0), (40.0, 2.0)],
    4: [(50.0, 3.0), (51.5, 3.0), (50.5, 3.0)],
}


def test_one_lucky_seed_is_not_the_best(plan: SweepPlan) -> None:
    records = records_of(LUCKY)
    best = best_trial(plan, records)
    assert best is not None and best.point["model.neuron.levels"] == 4
    assert [item.number for item in front_trials(plan, records)] == [6, 3, 0]


def test_a_sweep_is_told_by_the_means_of_the_leading_configuration(plan: SweepPlan) -> None:
    records = records_of(LUCKY)
    assert score_sweep(plan, records) == pytest.approx([50.667, 3.0], abs=1e-3)
    assert score_sweep(plan, {}) == []


def test_where_no_configuration_learned_none_leads(plan: SweepPlan, tmp_path: Path) -> None:
    records = records_of({1: [(7.2, 1.0)] * 3, 2: [(7.9, 2.0)] * 3})
    for item in records.values():
        baselines = {"val/baseline_majority": 7.2, "val/baseline_position": 7.8}
        item.history[4] = {"val/mIoU": item.values[0], **baselines}
    assert best_trial(plan, records) is None and score_sweep(plan, records) == []
    text = render_sweep(Page(plan, records, tmp_path / "s", {}, {}, ""))
    verdict = text.split("<h2>")[0]
    assert "Every result is degenerate" in verdict and "has the best mean" not in verdict


def test_rows_hold_mean_interval_difference_and_what_cannot_be_told(plan: SweepPlan) -> None:
    groups = measure_groups(plan, records_of(LUCKY))
    assert groups is not None
    rows = {row["model.neuron.levels"]: row for row in group_rows(plan, groups)}
    four = rows[4]
    assert four["val/mIoU"] == pytest.approx(50.667, abs=1e-3)
    # t(0.975, 2) is 4.3027; the deviation of 50, 51.5 and 50.5 is 0.7638.
    assert four["val/mIoU high"] - four["val/mIoU"] == pytest.approx(1.897, abs=1e-3)
    assert four["val/mIoU difference"] == pytest.approx(10.167, abs=1e-3)
    assert four["energy/mJ difference"] == pytest.approx(2.0), "in its own direction"
    assert four["val/mIoU p (Holm)"] == pytest.approx(2 * four["val/mIoU p"])
    assert four["leader"] and not rows[2]["leader"]
    assert rows[2]["not_told_from_leader"] and not rows[1]["not_told_from_leader"]
    assert "val/mIoU difference" not in rows[1], "the reference is not compared with itself"
    assert four["trials"] == "6 7 8"


def test_a_leader_within_noise_is_not_called_the_best(plan: SweepPlan) -> None:
    groups = measure_groups(plan, records_of(LUCKY))
    assert groups is not None
    assert (
        "cannot be told from configuration 3 (T1 D2 levels): there is no best one"
        in describe_leader(plan, groups)
    )
    told = measure_groups(plan, records_of({level: LUCKY[level] for level in (1, 4)}))
    assert told is not None
    assert "better than each of the 1 other configurations" in describe_leader(plan, told)
    assert "| 50.67 [48.77, 52.56] (3 seeds) |" in describe_groups(plan, told)


def test_the_front_is_drawn_over_means_with_intervals_in_both_objectives(
    plan: SweepPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def draw(*given: Any, **named: Any) -> bytes:
        drawn.append((given, named))
        return b""

    monkeypatch.setattr(sweep_figures.charts, "draw_pareto", draw)
    sweep_figures.draw_sweep(plan, records_of(LUCKY), {}, {})
    (points, best, labels, names), named = drawn[0]
    assert labels == (metric_label("energy/mJ"), metric_label("val/mIoU"))
    assert points[0] == pytest.approx((3.0, 50.667), abs=1e-3)
    assert named["boxes"][0][0] == (3.0, 3.0), "the energy of three seeds is the same"
    assert named["boxes"][0][1] == pytest.approx((48.77, 52.564), abs=1e-3)
    assert list(names.values()) == ["T1 D4 levels", "T1 D2 levels", "T1 D1 levels"]
    assert list(names) == points, "each beside its own"
    assert len(best) == 3


def test_the_page_has_a_table_of_groups_for_each_objective(plan: SweepPlan, tmp_path: Path) -> None:
    text = render_sweep(Page(plan, records_of(LUCKY), tmp_path / "s", {}, {}, ""))
    told, table = text.split("Configurations with several seeds")
    assert "Configuration 6 (T1 D4 levels) has the best mean val/mIoU, 50.67 [48.77, 52.56]" in told
    assert "it cannot be told from configuration 3 (T1 D2 levels): there is no best one." in told
    assert "Welch" not in told, "the page says one thing, and that of the paired tests"
    miou, energy = table.split("<h2>Trials</h2>")[0].split("<h3>energy/mJ</h3>")
    four = miou[miou.index("6 (T1 D4 levels)</td>") : miou.index("3 (T1 D2 levels)</td>")]
    cells = re.findall(r">([^<>]+)</td>", four)
    # Mean, deviation 0.7638, t interval; then difference, its interval, p, Holm of two, d_z.
    # Of what the sweep varies the name leaves the mask weight unsaid.
    assert cells[:5] == ["-", "3", "50.7", "0.8", "48.8 to 52.6"]
    assert cells[5] == "+10.2" and cells[6].count(" to ") == 1
    # Differences 10, 10.5 and 10: t is 61, p 0.00027.
    assert cells[7:9] == ["&lt; 0.001", "&lt; 0.001"] and 'title="0.00026' in four
    assert cells[10] == "highest, not the best for sure"
    assert "cannot be told from 6</td>" in miou and "worse</td>" in miou
    assert energy.index("0 (T1 D1 levels)") < energy.index("6 (T1 D4 levels)"), "the least first"
    assert "+2</td>" in energy, "in the metric's own direction"
    assert "Bars are 95 % intervals of the mean in both objectives" in text


def test_the_page_of_a_sweep_without_replicates_has_no_such_table(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, **listed(1, 2, 4))
    page = Page(plan, records_of({1: [(40.0, 1.0)], 2: [(41.0, 2.0)]}), tmp_path / "s", {}, {}, "")
    assert "several seeds" not in render_sweep(page)


def test_a_sweep_without_replicates_has_no_groups(tmp_path: Path) -> None:
    assert measure_groups(toy_plan(tmp_path, **listed(1)), {}) is None


def test_a_sweep_with_replicates_leaves_groups_everywhere(tmp_path: Path, data: Path) -> None:
    changes: dict[str, Any] = {"objectives": [UP, DOWN], "replicates": 2}
    overrides = ["trainer.max_steps=2", "trainer.evaluate_every=1", "trainer.test=false"]
    toy_plan(tmp_path, **listed(1, 4), overrides=overrides, **changes)
    outcome = run_toys(data, tmp_path, name="toy")
    assert outcome.counts == {"COMPLETE": 4}
    rows = json.loads((outcome.folder / "groups.json").read_text())
    assert [(row["group"], row["seeds"]) for row in rows] == [(1, 2), (0, 2)]
    with (outcome.folder / "groups.csv").open() as file:
        assert [row["trials"] for row in csv.DictReader(file)] == ["1 3", "0 2"]
    trials = json.loads((outcome.folder / "results.json").read_text())
    assert [row["group"] for row in trials] == [0, 1, 0, 1] or [row["group"] for row in trials] == [
        0,
        0,
        1,
        1,
    ]
    assert outcome.best is not None
    (word,) = [item for item in list_runs(tmp_path) if item.word == "toy"]
    assert word.metrics["val/mIoU"] == rows[0]["val/mIoU"]
    assert word.state.endswith(", mean of 2 seeds")
    with (outcome.folder / "front.csv").open() as file:
        assert float(next(csv.DictReader(file))["val/mIoU"]) == rows[0]["val/mIoU"]
    assert find_run("toy/best", tmp_path).folder.name == str(outcome.best.number)
    client = MlflowClient(tracking_uri(tmp_path))
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert "best mean val/mIoU" in parent.data.tags["best"]
    for metric in ("val/mIoU", "best/val_mIoU", "sweep/best"):
        assert parent.data.metrics[metric] == rows[0]["val/mIoU"], "one answer everywhere"
    stored = read_sweep(outcome.folder)
    assert [(n, r.original, r.point["seed"]) for n, r in stored.records.items()] == [
        (0, None, 1),
        (1, None, 1),
        (2, 0, 2),
        (3, 1, 2),
    ], "who reads the folder knows what was repeated"
    again = write_sweep_report(outcome.folder, tmp_path / "again.html").read_text()
    assert again.count("(T1 D4 levels)</td>") == 2, "one table an objective"
    assert "(2 seeds)" in parent.data.tags["mlflow.note.content"]
    pairs: dict[str, set[str]] = {}
    for run in runs:
        if "group" in run.data.tags:
            pairs.setdefault(run.data.tags["group"], set()).add(run.data.tags["trial"])
    assert sorted(map(len, pairs.values())) == [2, 2], "MLflow groups trials by configuration"
    named = {
        run.data.tags["trial"]: run.data.tags["configuration"] for run in runs if run != parent
    }
    first, second = (f"T1 D{levels} levels, mask_weight=20" for levels in (1, 4))
    assert named == {"0": first, "1": second, "2": first, "3": second}, "what its table groups by"
    assert "best mean val/mIoU" in outcome.leader
    cost = json.loads((outcome.folder / "cost.json").read_text())
    assert cost["finished"] == pytest.approx(4 * 2 * 0.01, abs=0.06)
    assert cost["failed"] == cost["pruned"] == 0.0
    assert cost["total"] == pytest.approx(cost["finished"] + cost["waiting"], abs=0.11)
    assert parent.data.metrics["device_seconds/finished"] == cost["finished"]
    assert "Device-seconds: " in parent.data.tags["mlflow.note.content"]
    effects = json.loads((outcome.folder / "effects.json").read_text())
    levels = [row for row in effects if row["key"] == "model.neuron.levels"]
    assert [row["value"] for row in levels] == [1, 4]
