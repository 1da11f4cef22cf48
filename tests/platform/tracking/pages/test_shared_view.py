"""The view of an experiment's page: columns, order and charts, as MLflow's pages read them."""

import json

import pytest

from spikeseg.platform.tracking.metric_table import METRICS
from spikeseg.platform.tracking.pages.shared_view import (
    CONFIGURATION,
    VIEW_TAG,
    Objective,
    experiment_tag,
    request_view,
    same_view,
    view_key,
)


def state_of(request: dict[str, str]) -> dict:
    _, value = experiment_tag(request[VIEW_TAG], 5)
    return json.loads(json.loads(value)["state"])


def test_a_sweep_s_view_shows_its_trials_by_the_first_objective() -> None:
    varied = ["model.neuron.timesteps", "loss.mask_weight"]
    request = request_view("abc", sweep="sweep-a", varied=varied)
    state = state_of(request)
    assert view_key(request) == "abc"
    assert experiment_tag(request[VIEW_TAG], 5)[0] == "mlflow.sharedViewState.abc"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val/mIoU`", False)
    assert state["searchFilter"] == "tags.sweep = 'sweep-a'"
    wanted = ("metrics.`val/mIoU`", "metrics.`energy/mJ`", "metrics.`snn/firing_rate`", "tags.`T`")
    assert {*wanted, "tags.`D`", "tags.`state`", "params.`loss.mask_weight`"} <= {
        *state["selectedColumns"]
    }
    parallel, scatter = state["compareRunCharts"]
    assert parallel["selectedParams"] == varied
    assert parallel["selectedMetrics"] == ["energy/mJ", "val/mIoU"]
    assert scatter["xaxis"]["key"] == "energy/mJ" and scatter["yaxis"]["key"] == "val/mIoU"


def test_a_view_of_means_groups_trainings_that_differ_in_the_seed_alone() -> None:
    assert "groupBy" not in state_of(request_view("a", sweep="s"))
    request = request_view("a", sweep="s", means=True)
    state = state_of(request)
    (key,) = state["groupBy"]["groupByKeys"]
    assert (key["mode"], key["groupByData"]) == ("tag", CONFIGURATION)
    assert state["groupBy"]["aggregateFunction"] == "average"
    name = json.loads(experiment_tag(request[VIEW_TAG], 5)[1])["name"]
    assert name == "s: means over seeds by val/mIoU"


def test_charts_that_mlflow_makes_of_metrics_stand_closed_below_ours() -> None:
    ours, *others = state_of(request_view())["compareRunSections"]
    assert ours["display"] and {section["display"] for section in others} == {False}
    names = {section["name"] for section in others}
    assert {name.rpartition("/")[0] for name in METRICS} - names == {"system"}
    assert "System metrics" in names


def test_a_sweep_of_one_objective_that_is_minimized_has_no_scatter_and_ascends() -> None:
    state = state_of(request_view("a", objectives=[Objective("energy/mJ", True)]))
    assert state["orderByAsc"] is True and len(state["compareRunCharts"]) == 1


def test_no_view_compares_by_a_baseline() -> None:
    assert "baseline" not in json.dumps(state_of(request_view()))


def test_a_view_of_many_dimensions_fits_into_a_tag() -> None:
    varied = [f"model.part_with_a_long_name.field_number_{n}" for n in range(40)]
    _, value = experiment_tag(request_view("a", sweep="s" * 200, varied=varied)[VIEW_TAG], 1)
    assert len(value) < 5000


def test_the_same_view_made_at_another_time_is_not_written_again() -> None:
    request = request_view()[VIEW_TAG]
    _, first = experiment_tag(request, 1)
    _, again = experiment_tag(request, 2)
    _, other = experiment_tag(request_view(varied=["seed"])[VIEW_TAG], 1)
    assert first != again and same_view(first, again)
    assert not same_view(first, other)
    assert not same_view(None, first) and not same_view("{", first)


@pytest.mark.parametrize("request_text", ["{", "{}", "[]", '{"objectives": [], "key": 1}'])
def test_what_asks_for_no_view_is_refused(request_text: str) -> None:
    with pytest.raises(ValueError):
        experiment_tag(request_text, 1)
    assert view_key({VIEW_TAG: request_text}) in (None, "1")
