"""The table of metrics is what readers are told, and what evaluations measure."""

import math

import pytest
import run_contents
import torch

from spikeseg.datasets.spec import load_label_space
from spikeseg.model.metrics.panoptic import PanopticCounts
from spikeseg.platform.evaluation.scores import SplitCounts, compute_metrics
from spikeseg.platform.tracking.metric_table import (
    MEASURED,
    METRICS,
    NEEDS,
    evaluation_metrics,
    metric_label,
    restore_earlier_rule,
    separate_energy_rules,
    separate_energy_series,
    split_metrics,
)


def test_the_page_shows_the_table() -> None:
    better = {"maximize": "higher", "minimize": "lower", None: ""}
    wanted = [
        [
            f"`{name}`",
            metric.unit,
            "from 0" if metric.high == math.inf else f"0 to {metric.high:g}",
            better[metric.better],
            metric.measured,
            NEEDS[metric.needs],
            metric.meaning,
        ]
        for name, metric in METRICS.items()
    ]
    assert run_contents.rows("Metrics") == wanted
    assert run_contents.rows("Measured") == [[f"`{word}`", text] for word, text in MEASURED.items()]


def test_a_panoptic_evaluation_over_categories_scores_what_the_table_says() -> None:
    space = load_label_space("cityscapes")
    confusion = torch.eye(19, 20, dtype=torch.int64)
    segments = PanopticCounts(torch.ones(19, 3, dtype=torch.int64), torch.ones(19).double())
    for counts, task in ((None, "semantic"), (segments, "panoptic")):
        scores = compute_metrics("val", SplitCounts(confusion, counts), space)
        wanted = [name for name in evaluation_metrics(task) if name.startswith("val/")]
        assert set(scores) == set(wanted)
        assert all(0 <= value <= METRICS[name].high for name, value in scores.items())


def test_a_score_that_the_table_lacks_is_noticed_where_it_is_measured() -> None:
    with pytest.raises(
        AssertionError, match="scores \\['mDice'\\] are not in the table of metrics"
    ):
        split_metrics("val", {"mIoU": 50.0, "mDice": 60.0})


def test_a_label_says_unit_and_direction_where_there_are_any() -> None:
    assert metric_label("energy/mJ") == "energy/mJ (mJ, lower is better)"
    assert metric_label("snn/firing_rate") == "snn/firing_rate (spikes)"
    assert metric_label("train/lr") == "train/lr"
    assert metric_label("somebody/else") == "somebody/else"


NOW = {"val/mIoU": 40.0, "energy/mJ": 0.06, "energy/mJ.earlier": 0.03, "energy/rule": 2.0}
BEFORE = {"val/mIoU": 41.0, "energy/mJ": 0.031}


def test_energies_of_two_rules_never_have_one_name() -> None:
    assert separate_energy_rules(NOW) == NOW
    assert separate_energy_rules(BEFORE) == {"val/mIoU": 41.0, "energy/mJ.earlier": 0.031}
    assert separate_energy_rules({"val/mIoU": 1.0}) == {"val/mIoU": 1.0}


def test_a_sweep_of_the_earlier_rule_goes_on_with_it() -> None:
    assert restore_earlier_rule(NOW) == {"val/mIoU": 40.0, "energy/mJ": 0.03}
    # Read back from a checkpoint of that time.
    assert restore_earlier_rule(BEFORE) == BEFORE


def test_a_run_resumed_across_rules_has_a_series_of_each() -> None:
    series = {
        "energy/mJ": [(10, 0.3), (20, 0.6)],
        "energy/mJ.earlier": [(20, 0.29)],
        "energy/rule": [(20, 2.0)],
        "val/mIoU": [(10, 1.0), (20, 2.0)],
    }
    assert separate_energy_series(series) == {
        **series,
        "energy/mJ": [(20, 0.6)],
        "energy/mJ.earlier": [(10, 0.3), (20, 0.29)],
    }
    before = {"energy/mJ": [(10, 0.3)]}
    assert separate_energy_series(before) == {"energy/mJ.earlier": [(10, 0.3)]}
