"""The table and charts that an experiment's page opens with, as a shared view of MLflow's pages.

MLflow 3.17 keeps a view as a tag of the experiment, `mlflow.sharedViewState.KEY`, and an address
with `viewStateShareKey=KEY` opens it. Sorted by a metric the table is flat: trials stand in one
list with the runs, none is folded away. (Which rows are unfolded cannot be stored.)
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..metric_table import METRICS

_log = logging.getLogger(__name__)

VIEW_TAG = "spikeseg.view"
"""Tag of a run or sweep that says which view its experiment is to have."""
_EXPERIMENT_TAG = "mlflow.sharedViewState."
_MOST_VARIED = 8
ALL_RUNS = "runs"
"""Key of the view of all runs of an experiment."""
# These three have tags with short names, which fit into a column's head.
_NEURON = {
    "model.neuron.timesteps": "T",
    "model.neuron.levels": "D",
    "model.neuron.normalization": "normalization",
}
_METRICS = ("val/mIoU", "energy/mJ", "snn/firing_rate")
_WIDE, _NARROW = 110, 60
_SECTION = "spikeseg"
CONFIGURATION = "configuration"
"""Tag of a trial that names what it shares with those of other seeds."""
_GROUPED = {
    "groupBy": {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "tag", "groupByData": CONFIGURATION}],
    },
    "groupsExpanded": {},
    # Of means MLflow draws no parallel coordinates; single trainings show the spread of seeds.
    "useGroupedValuesInCharts": False,
}


class Objective(NamedTuple):
    """What runs are compared by.

    Attributes:
        metric: Its name in MLflow.
        ascending: Whether the smallest value is the best.
    """

    metric: str
    ascending: bool


_DEFAULT = (Objective("val/mIoU", False), Objective("energy/mJ", True))


def request_view(
    key: str = ALL_RUNS,
    *,
    sweep: str | None = None,
    varied: Sequence[str] = (),
    objectives: Sequence[Objective] = _DEFAULT,
    means: bool = False,
) -> dict[str, str]:
    """The tag of a run or sweep that asks for a view of its experiment.

    Args:
        key: The view's key; the same key is the same view.
        sweep: Name of the sweep whose trials are shown; None for all runs.
        varied: Dotted keys that the sweep varies.
        objectives: What runs are compared by, the first one decides the order.
        means: Whether the table shows means over runs with the same `CONFIGURATION` tag, each
            above its runs.
    """
    wanted = {"key": key, "sweep": sweep, "varied": list(varied[:_MOST_VARIED])}
    asked = {"objectives": [list(o) for o in objectives], **({"means": True} if means else {})}
    return {VIEW_TAG: json.dumps({**wanted, **asked})}


def view_key(tags: Mapping[str, str]) -> str | None:
    """Key of the view that a run's tags ask for; None where they ask for none.

    Args:
        tags: The run's tags.
    """
    try:
        return str(json.loads(tags[VIEW_TAG])["key"])
    except (KeyError, ValueError, TypeError):
        return None


def has_view(tags: Mapping[str, str], key: str) -> bool:
    """Whether an experiment has a view.

    Args:
        tags: The experiment's tags.
        key: The view's key.
    """
    return f"{_EXPERIMENT_TAG}{key}" in tags


def experiment_tag(request: str, time: int) -> tuple[str, str]:
    """Name and value of the experiment's tag that holds a view.

    Args:
        request: Value of a run's `VIEW_TAG`.
        time: Milliseconds of its making, which MLflow shows.

    Raises:
        ValueError: Where the request is none of `request_view`.
    """
    try:
        wanted = json.loads(request)
        objectives = [Objective(*item) for item in wanted["objectives"]]
        sweep, varied, key = wanted["sweep"], list(wanted["varied"]), str(wanted["key"])
        first, means = objectives[0], bool(wanted.get("means"))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{VIEW_TAG}: not a request for a view: {request[:200]}") from error
    title = f"{sweep}: {'means over seeds' if means else 'trials'}" if sweep else "All runs"
    state = _view_state(sweep, varied, objectives) | (_GROUPED if means else {})
    content = {
        "name": f"{title} by {first.metric}",
        "createdAt": time,
        "updatedAt": time,
        "state": json.dumps(state, separators=(",", ":")),
    }
    return f"{_EXPERIMENT_TAG}{key}", json.dumps(content, separators=(",", ":"))


def share_view(client: Any, experiment_id: str, request: str, time: int) -> None:
    """Give an experiment the view that a run asks for, unless it has it.

    Args:
        client: MLflow's client.
        experiment_id: The experiment.
        request: Value of a run's `VIEW_TAG`.
        time: Milliseconds of its making.
    """
    try:
        name, value = experiment_tag(request, time)
    except ValueError as error:
        _log.warning("%s", error)
        return
    if not same_view(client.get_experiment(experiment_id).tags.get(name), value):
        client.set_experiment_tag(experiment_id, name, value)


def same_view(one: str | None, other: str) -> bool:
    """Whether two values of an experiment's tag hold the same view, whenever they were made."""
    try:
        return one is not None and json.loads(one)["state"] == json.loads(other)["state"]
    except (KeyError, ValueError, TypeError):
        return False


def _view_state(
    sweep: str | None, varied: Sequence[str], objectives: Sequence[Objective]
) -> dict[str, Any]:
    metrics = list(dict.fromkeys([*(o.metric for o in objectives), *_METRICS]))
    others = [key for key in varied if key not in _NEURON]
    columns = [
        *(f"metrics.`{metrics[0]}`" for _ in metrics[:1]),
        *(f"tags.`{name}`" for name in _NEURON.values()),
        *(f"params.`{key}`" for key in others),
        *(f"metrics.`{name}`" for name in metrics[1:]),
        "tags.`state`",
    ]
    narrow = {f"tags.`{name}`": _NARROW for name in ("T", "D")}
    narrow |= {"tags.`state`": 95, "tags.`normalization`": 100}
    return {
        "orderByKey": f"metrics.`{objectives[0].metric}`",
        "orderByAsc": objectives[0].ascending,
        "searchFilter": "" if sweep is None else f"tags.sweep = '{sweep}'",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {name: narrow.get(name, _WIDE) for name in columns},
        "runsHiddenMode": "SHOW_ALL",
        # Of the charts' page, where the list leaves no room for the names of axes.
        "runListHidden": True,
        "compareRunCharts": _charts(varied or list(_NEURON), objectives),
        "compareRunSections": [_section(), *_closed_sections()],
        # Else MLflow sorts our charts behind those that it makes of every metric.
        "isAccordionReordered": True,
    }


def _charts(varied: Sequence[str], objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    names = [objective.metric for objective in objectives]
    parallel = {
        **_generated("parallel"),
        "type": "PARALLEL",
        "metricSectionId": _SECTION,
        "selectedParams": list(varied),
        # MLflow colours the lines by the last one.
        "selectedMetrics": [*names[1:], names[0]],
        "showAllRuns": True,
        "runsCountToCompare": 100,
    }
    if len(names) < 2:
        return [parallel]
    scatter = {
        **_generated("scatter"),
        "type": "SCATTER",
        "metricSectionId": _SECTION,
        "xaxis": {"key": names[1], "type": "METRIC"},
        "yaxis": {"key": names[0], "type": "METRIC"},
        "runsCountToCompare": 100,
    }
    return [parallel, scatter]


def _generated(identity: str) -> dict[str, Any]:
    return {"uuid": identity, "isGenerated": False, "deleted": False, "isReordered": False}


def _closed_sections() -> list[dict[str, Any]]:
    """Where MLflow puts the charts that it makes of every metric: closed, or it draws them first.

    It finds a section by its name, which is a metric's up to the last slash.
    """
    prefixes = dict.fromkeys(name.rpartition("/")[0] for name in METRICS)
    names = ["System metrics" if prefix == "system" else prefix for prefix in prefixes]
    shape = {"display": False, "isReordered": False}
    return [{"uuid": name, "name": name, **shape} for name in names]


def _section() -> dict[str, Any]:
    """Where both charts stand: side by side, wide enough for the names of parameters."""
    shape = {"columns": 2, "cardHeight": 420}
    return {**_generated(_SECTION), "name": "Comparison", "display": True, **shape}
