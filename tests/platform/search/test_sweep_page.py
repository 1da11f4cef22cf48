"""A sweep's report says what the trials say: verdict, order, effects, failures."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from spikeseg.platform.search.study.failure_cause import failure_cause
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_file.plan import SweepPlan, load_sweep
from spikeseg.platform.search.sweep_page import Page, list_commands, render_sweep
from spikeseg.platform.search.sweep_verdict import describe_lead, describe_rank, write_verdict

BASELINES = {"val/baseline_majority": 7.8, "val/baseline_position": 8.1}
T, D = "model.neuron.timesteps", "model.neuron.levels"


@pytest.fixture(scope="module")
def plan() -> SweepPlan:
    return load_sweep("demo")


def trial(number: int, miou: float, energy: float, **point: Any) -> TrialRecord:
    values = {"val/mIoU": miou, "energy/mJ": energy}
    whole = {T: 1, D: 4, "model.neuron.normalization": "levels", "loss.mask_weight": 20.0, **point}
    return TrialRecord(
        number=number,
        state="COMPLETE",
        point=whole,
        history={240: {**values, **BASELINES}},
        seconds=10.0,
        reason="full budget",
        step=240,
        values=(miou, energy),
    )


def test_more_trials_are_offered_where_there_are_untried_points(tmp_path: Path) -> None:
    def offered(space: dict[str, Any], configurations: int) -> str | None:
        plan = load_sweep("demo")
        recipe = plan.recipe.model_validate({**plan.recipe.model_dump(), "space": space})
        plan = dataclasses.replace(plan, recipe=recipe)
        lines = dict(list_commands(plan, tmp_path / "s", configurations, None))
        return lines.get("add trials")

    three = {D: {"choices": [1, 2, 4]}}
    assert "--trials 3 " in (offered(three, 2) or "")
    assert offered(three, 3) is None
    assert "--trials 12 " in (offered({"loss.mask_weight": {"low": 1.0, "high": 9.0}}, 6) or "")


def by_number(*trials: TrialRecord) -> dict[int, TrialRecord]:
    return {item.number: item for item in trials}


def test_one_seed_crowns_nothing(plan: SweepPlan) -> None:
    records = by_number(trial(0, 29.0, 0.03), trial(1, 27.2, 0.02, **{D: 1}))
    first, second, *_, baselines = write_verdict(plan, records)
    assert first.startswith("Highest val/mIoU: 29.0 (T1 D4 levels, trial 0, seed 1). Next: 27.2")
    assert "a difference of +1.8" in first
    assert "cannot be told from one seed; none is called the best" in first
    assert second.startswith("Lowest energy/mJ: 0.0200 (T1 D1 levels, trial 1, seed 1).")
    assert "(majority 7.8, position 8.1)" in baselines


def test_a_parameter_with_one_value_in_all_results_was_not_compared(plan: SweepPlan) -> None:
    told = write_verdict(plan, by_number(trial(0, 29.0, 0.03), trial(1, 27.2, 0.02, **{D: 1})))
    unknown = [sentence for sentence in told if "nothing is known of its other values" in sentence]
    assert [sentence.partition(" is ")[0] for sentence in unknown] == [
        T,
        "model.neuron.normalization",
        "loss.mask_weight",
    ]
    assert unknown[1].startswith("model.neuron.normalization is levels in every result")
    alone = write_verdict(plan, by_number(trial(0, 29.0, 0.03)))
    assert not any("nothing is known" in sentence for sentence in alone)


def test_the_lead_is_one_short_sentence_that_crowns_nothing(plan: SweepPlan) -> None:
    high, low = trial(0, 29.0, 0.03), trial(3, 28.5, 0.02, **{T: 2})
    assert describe_lead(plan, [low, high]) == (
        "highest is trial 0 (T1 D4 levels), +0.5 from the next, trial 3 (T2 D4 levels): "
        "one seed cannot tell that from noise"
    )
    assert "in a tie with trial 0" in describe_lead(plan, [high, trial(3, 29.01, 0.02, **{T: 2})])
    assert "with nothing to compare it with" in describe_lead(plan, [high])
    clear = [trial(n, 30.0 + n / 10, 0.03, seed=n) for n in range(3)]
    clear += [trial(3 + n, 20.0 + n / 10, 0.03, seed=n, **{D: 1}) for n in range(3)]
    assert "trials 0, 1, 2 (T1 D4 levels)" in describe_lead(plan, clear)
    assert "more than the spread of seeds (Welch, 95 %)" in describe_lead(plan, clear)


def test_a_rank_says_that_one_seed_may_be_chance(plan: SweepPlan) -> None:
    assert describe_rank(plan, 1, 6, "s") == "rank 1 of 6 in s, one seed a point: it may be chance"
    repeated = load_sweep("demo", ["sweep.replicates=3"])
    assert "its page compares means of seeds" in describe_rank(repeated, 1, 18, "s")
    seeds = load_sweep("demo", ["sweep.space.seed={choices: [1, 2, 3]}"])
    assert describe_rank(seeds, 2, 6, "s") == "rank 2 of 6 in s"


def test_several_seeds_tell_a_clear_difference_and_refuse_an_unclear_one(plan: SweepPlan) -> None:
    clear = [trial(n, 30.0 + n / 10, 0.03, seed=n) for n in range(3)]
    clear += [trial(3 + n, 20.0 + n / 10, 0.03, seed=n, **{D: 1}) for n in range(3)]
    assert "more than the spread of seeds" in write_verdict(plan, by_number(*clear))[0]
    close = [trial(n, 30.0 + n, 0.03, seed=n) for n in range(3)]
    close += [trial(3 + n, 29.8 + n, 0.03, seed=n, **{D: 1}) for n in range(3)]
    assert "within the spread of seeds" in write_verdict(plan, by_number(*close))[0]


def test_ties_and_degenerate_results_are_called_so(plan: SweepPlan) -> None:
    equal = by_number(trial(0, 29.0, 0.03), trial(1, 29.01, 0.02, **{D: 1}))
    assert "That is a tie of 2; none of them is the best." in write_verdict(plan, equal)[0]
    nothing = by_number(trial(0, 8.5, 0.03), trial(1, 8.0, 0.02, **{D: 1}))
    assert write_verdict(plan, nothing)[0].startswith("Every result is degenerate")


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("killed: its process died 4 times", "infrastructure"),
        ("ended without a decision", "infrastructure"),
        ("out of memory: CUDA out of memory", "point"),
        ("not finite: loss is nan", "point"),
        ("refused: model.neuron: no", "point"),
        ("energy/mJ is nan", "point"),
    ],
)
def test_a_lost_process_is_told_apart_from_a_point_that_fails(reason: str, cause: str) -> None:
    assert failure_cause(reason) == cause


def test_the_page_has_every_trial_its_failures_and_the_lines_that_go_on(
    plan: SweepPlan, tmp_path: Path
) -> None:
    failed = TrialRecord(2, "FAIL", point={T: 2, D: 8}, reason="not finite: loss is nan", step=10)
    lost = TrialRecord(3, "FAIL", point={T: 2, D: 8}, reason="killed: its process died 4 times")
    records = by_number(trial(0, 20.123456, 0.03), trial(1, 27.2, 0.02, **{T: 2}), failed, lost)
    text = render_sweep(Page(plan, records, tmp_path / "sweep-demo", {}, {}, ""))
    assert '<td title="20.123456">20.1</td>' in text
    assert text.index('title="27.2"') < text.index('title="20.123456"')
    assert "<td>the point&#39;s own</td><td>not finite: loss is nan</td>" in text
    assert "its process was lost, and so again when tried again" in text
    assert "Each trial was evaluated once" in text
    assert f"spikeseg sweep --resume sweep-demo --trials 8 --storage {tmp_path}" in text
    assert "0.9 pJ" in text


def test_learning_curves_are_drawn_where_a_trial_was_evaluated_often(
    plan: SweepPlan, tmp_path: Path
) -> None:
    item = trial(0, 20.0, 0.03)
    item.history[120] = {"val/mIoU": 15.0, "energy/mJ": 0.03}
    text = render_sweep(Page(plan, by_number(item), tmp_path / "s", {}, {}, ""))
    assert 'alt="curves"' in text


def test_a_sweep_without_a_result_says_why(plan: SweepPlan, tmp_path: Path) -> None:
    failed = TrialRecord(0, "FAIL", point={T: 2}, reason="not finite: loss is nan")
    text = render_sweep(
        Page(plan, by_number(failed), tmp_path / "s", {}, {}, "no result: 1 failed")
    )
    assert "no result: 1 failed" in text
