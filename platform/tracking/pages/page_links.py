"""Addresses of MLflow's pages that open on runs, not on a welcome page or a page of traces.

MLflow's pages begin in the mode that the browser last had, at first `GenAI`; an address with
`workflowType=machine_learning` opens the runs (MLflow 3.17; no tag of an experiment does that).
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from ...config.command_lines import command_line
from ...config.typed_paths import sqlite_file
from ..mlflow_client import connect
from ..tracking_uri import tracking_uri, without_user
from .shared_view import ALL_RUNS, has_view, view_key

_log = logging.getLogger(__name__)

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `spikeseg ui` serves unless it is told otherwise."""
_MODE = {"workflowType": "machine_learning"}
_DATABASES = ("*/mlflow.db", "*/*/mlflow.db")


class NewestRun(NamedTuple):
    """The run that was started last.

    Attributes:
        experiment_id: Its experiment.
        experiment: That experiment's name.
        run_id: Its id.
        parent_id: Id of its sweep's run; its own where it belongs to no sweep.
        word: What commands call that one.
        sweep_trials: Ids of all trials of its sweep; none where it belongs to no sweep.
        view: Key of the view of its experiment that shows it; None where there is none.
        all_runs: Key of the view that shows all runs of its experiment; None likewise.
    """

    experiment_id: str
    experiment: str
    run_id: str
    parent_id: str
    word: str
    sweep_trials: tuple[str, ...]
    view: str | None
    all_runs: str | None


def link_experiment(
    server: str, experiment_id: str, view: str | None = None, *, charts: bool = False
) -> str:
    """Address of the table of an experiment's runs, or of its charts.

    Args:
        server: Address of MLflow's server, without a slash at its end.
        experiment_id: The experiment.
        view: Key of the shared view that it opens with; None for MLflow's own columns.
        charts: Whether it opens on the view's charts: parameters against objectives.
    """
    query = _MODE | ({} if view is None else {"viewStateShareKey": view})
    query |= {"compareRunsMode": "CHART"} if charts else {}
    return f"{server}/#/experiments/{experiment_id}/runs?{urlencode(query)}"


def link_run(server: str, experiment_id: str, run_id: str) -> str:
    """Address of a run's page.

    Args:
        server: Address of MLflow's server.
        experiment_id: The run's experiment.
        run_id: Its id.
    """
    return f"{server}/#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_MODE)}"


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
    tags, parent = run.data.tags, run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    if parent != run.info.run_id:
        tags = client.get_run(parent).data.tags
    trials = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=100
    )
    return NewestRun(
        experiment.experiment_id,
        experiment.name,
        run.info.run_id,
        parent,
        tags.get("run", parent),
        tuple(trial.info.run_id for trial in trials),
        view_key(tags),
        ALL_RUNS if has_view(experiment.tags, ALL_RUNS) else None,
    )


def describe_run_page(folder: Path, storage: Path) -> list[str]:
    """Addresses of a run's page, and of its sweep's table and charts, as lines to print.

    Args:
        folder: Of a run or a sweep.
        storage: Folder of all runs.

    Returns:
        Nothing where MLflow has no run of it or cannot be asked. Of runs in a file, the addresses
        are those of `spikeseg ui`.
    """
    try:
        run_id = json.loads((folder / "journal" / "sent.json").read_text())["run_id"]
        return _describe_pages_of(str(run_id), storage)
    except Exception as error:
        # Nothing is lost: `spikeseg ui` looks them up again.
        _log.info("%s: its page is not known: %s", folder, error)
        return []


def _describe_pages_of(run_id: str, storage: Path) -> list[str]:
    uri = tracking_uri(storage)
    run = connect(uri).get_run(run_id)
    server = without_user(uri).rstrip("/") if uri.startswith("http") else LOCAL_SERVER
    experiment, view = run.info.experiment_id, view_key(run.data.tags)
    lines = [
        f"page:     {link_run(server, experiment, run_id)}",
        f"table:    {link_experiment(server, experiment, view)}",
    ]
    if "trials" in run.data.tags:
        lines.append(f"charts:   {link_experiment(server, experiment, view, charts=True)}")
    return lines


def describe_report_pages(run_ids: Sequence[str], storage: Path) -> list[str]:
    """Addresses of the pages of some runs, as lines to print.

    Args:
        run_ids: Ids of the runs in MLflow.
        storage: Folder of all runs.
    """
    lines = (line for run_id in run_ids for line in _describe_pages_of(run_id, storage)[:1])
    return list(dict.fromkeys(lines))


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
        at, view = newest.experiment_id, newest.view
        first = link_experiment(server, at, view)
        all_runs = link_experiment(server, at, newest.all_runs)
        page = link_run(server, at, newest.parent_id)
        if len(newest.sweep_trials) < 2:
            return Pages(first, [f"runs of {newest.experiment}: {first}", f"the newest: {page}"])
        lines = [
            f"trials of {newest.word}: {first}",
            f"compared:  {link_experiment(server, at, view, charts=True)}",
            f"its page:  {page}",
            f"all runs of {newest.experiment}: {all_runs}",
        ]
        return Pages(first, lines)
    lines = [f"{storage.absolute()} holds no run yet"]
    if sqlite_file(uri) is not None:
        lines += [
            f"runs may be in: {command_line('ui', '--storage', folder)}"
            for folder in find_neighbours(storage)
        ]
    return Pages(server, lines)


def find_neighbours(storage: Path) -> list[Path]:
    """Folders beside a storage folder that hold runs, five at most.

    Args:
        storage: Folder of all runs, which need not exist.
    """
    beside = storage.absolute().parent
    databases = sorted({path for pattern in _DATABASES for path in beside.glob(pattern)})
    return [path.parent for path in databases if path.parent != storage.absolute()][:5]
