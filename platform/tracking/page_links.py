"""Addresses of MLflow's pages that open on runs, not on a welcome page or a page of traces.

MLflow's pages begin in the mode that the browser last had, at first `GenAI`; an address with
`workflowType=machine_learning` opens the runs (MLflow 3.17; no tag of an experiment does that).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from ..config.typed_paths import sqlite_file
from .mlflow_client import connect
from .tracking_uri import tracking_uri

_MODE = {"workflowType": "machine_learning"}
_DATABASES = ("*/mlflow.db", "*/*/mlflow.db")


class NewestRun(NamedTuple):
    """The run that was started last.

    Attributes:
        experiment_id: Its experiment.
        experiment: That experiment's name.
        run_id: Its id.
        sweep_trials: Ids of all trials of its sweep; none where it belongs to no sweep.
    """

    experiment_id: str
    experiment: str
    run_id: str
    sweep_trials: tuple[str, ...]


def link_experiment(server: str, experiment_id: str) -> str:
    """Address of the table of an experiment's runs.

    Args:
        server: Address of MLflow's server, without a slash at its end.
        experiment_id: The experiment.
    """
    return f"{server}/#/experiments/{experiment_id}/runs?{urlencode(_MODE)}"


def link_comparison(server: str, experiment_id: str, runs: Sequence[str]) -> str:
    """Address of the page that compares runs.

    Args:
        server: Address of MLflow's server.
        experiment_id: Their experiment.
        runs: Their ids.
    """
    query = {"runs": json.dumps(list(runs)), "experiments": json.dumps([experiment_id])} | _MODE
    return f"{server}/#/compare-runs?{urlencode(query)}"


def find_newest_run(uri: str) -> NewestRun | None:
    """The run that was started last, in any experiment; None where there is none.

    Args:
        uri: Tracking URI; a database that is not there yet is made.
    """
    client = connect(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    newest = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
    if not newest:
        return None
    run = newest[0]
    experiment = client.get_experiment(run.info.experiment_id)
    parent = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    trials = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=100
    )
    return NewestRun(
        experiment.experiment_id,
        experiment.name,
        run.info.run_id,
        tuple(trial.info.run_id for trial in trials),
    )


class Pages(NamedTuple):
    """What a person is told of a server's pages.

    Attributes:
        first: The page to open.
        lines: Lines to print.
    """

    first: str
    lines: list[str]


def describe_pages(server: str, storage: Path) -> Pages:
    """Say which pages to open, or where runs are if this storage has none.

    Args:
        server: Address of MLflow's server.
        storage: Folder of all runs.
    """
    uri = tracking_uri(storage)
    try:
        newest = find_newest_run(uri)
    except Exception as error:
        # A database on a server that is away; MLflow's own server says the rest.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return Pages(server, [f"its newest runs could not be looked up: {reason[0][:200]}"])
    if newest is not None:
        first = link_experiment(server, newest.experiment_id)
        lines = [f"runs of {newest.experiment}: {first}"]
        if len(newest.sweep_trials) > 1:
            link = link_comparison(server, newest.experiment_id, newest.sweep_trials)
            lines.append(f"its newest sweep's trials compared: {link}")
        return Pages(first, lines)
    lines = [f"{storage.absolute()} holds no run yet"]
    if sqlite_file(uri) is not None:
        beside = storage.absolute().parent
        databases = sorted({path for pattern in _DATABASES for path in beside.glob(pattern)})
        others = [path.parent for path in databases if path.parent != storage.absolute()]
        lines += [f"runs may be in: spikeseg ui --storage {folder}" for folder in others[:5]]
    return Pages(server, lines)
