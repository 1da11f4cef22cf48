"""`spikeseg benchmark pages`: how fast MLflow's pages open for an experiment of many runs."""

import importlib.util
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import click
import requests

from ...platform.checkpoint.run_folder import RunFolder
from ...platform.config.recipes import load_experiment, override
from ...platform.tracking.journal_lines import read_records
from ...platform.tracking.metric_table import METRICS
from ...platform.tracking.mlflow_client import connect
from ...platform.tracking.mlflow_server import server_command, server_environment
from ...platform.tracking.pages.shared_view import VIEW_TAG, request_view, share_view
from ...platform.tracking.tracking_uri import tracking_uri
from ...platform.train.tracked_training import make_journal
from ..cli import run
from .browser_pages import find_browser, time_pages

_PAGE_RUNS = 100
"""Runs that MLflow's pages ask for at a time (3.17)."""


@click.command("pages")
@click.option("--runs", default=500, show_default=True, help="Runs in one experiment.")
@click.option("--port", default=5057, show_default=True, help="Port of the server.")
@click.option(
    "--tries",
    type=click.IntRange(2),
    default=5,
    show_default=True,
    help="Times that each call is made and each page is opened.",
)
def command(runs: int, port: int, tries: int) -> None:
    """Record many runs with all their parameters, tags and metrics; time MLflow's pages of them.

    Pages are opened in the system's Chromium by Playwright, where both are installed; without them
    only the calls are timed.
    """
    with tempfile.TemporaryDirectory(prefix="spikeseg-benchmark-") as folder:
        storage = Path(folder)
        experiment = fill_experiment(storage, runs)
        server = subprocess.Popen(
            server_command(storage, host="127.0.0.1", port=port),
            env=server_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address)
            print(f"{runs} runs in one experiment, sqlite; median of {tries} calls")
            for name, number in (("a page's search", _PAGE_RUNS), ("all runs at once", runs)):
                seconds, size = time_search(address, experiment, number, tries)
                print(f"{name:18} {number:5} runs {size / 1e6:8.3f} MB {seconds:8.2f} s")
            _print_pages(storage, address, experiment, tries)
        finally:
            server.terminate()
            server.wait()


def _print_pages(storage: Path, address: str, experiment: str, tries: int) -> None:
    """Open the pages in a browser and say how long each took, or why none was opened."""
    browser = find_browser()
    if browser is None or importlib.util.find_spec("playwright") is None:
        print("no page was opened: Chromium and Playwright (`pip install playwright`) are needed")
        return
    newest = connect(tracking_uri(storage)).search_runs([experiment], max_results=1)[0]
    print(f"in a browser, {tries} visits  first      later   largest search")
    for item in time_pages(address, experiment, newest.info.run_id, tries=tries, browser=browser):
        size = f"{item.largest / 1e6:8.3f} MB" if item.largest else "none"
        print(f"{item.name:22} {item.first:8.2f} s {item.later:8.2f} s {size:>12}")


def fill_experiment(storage: Path, runs: int) -> str:
    """Record runs as trainings do: one journal, whose values every run gets with others of its own.

    Args:
        storage: Folder of all runs.
        runs: How many.

    Returns:
        The experiment's id.
    """
    from mlflow.entities import Metric, Param, RunTag

    base = load_experiment("shapes_tiny", [f"data.path={storage / 'shapes'}"])
    point = {"model.neuron.timesteps": 2, "loss.mask_weight": 7.5}
    folder = RunFolder(storage / f"one-{time.time_ns()}")
    folder.claim()
    point_of = override(base, point, "sweep")
    journal = make_journal(point_of, folder, 1, {"trial": "0"})
    journal.close()
    values: dict[str, dict[str, str]] = {"params": {}, "tags": {}}
    for record in read_records(journal.folder):
        if record["kind"] in values:
            values[record["kind"]].update(record["values"])
    client = connect(tracking_uri(storage))
    experiment = client.create_experiment(f"many-{time.time_ns()}")
    names = [name for name, metric in METRICS.items() if not metric.needs]
    now = time.time_ns() // 1_000_000
    for number in range(runs):
        identity = client.create_run(experiment, run_name=f"T2 D4 levels #{number}").info.run_id
        client.log_batch(
            identity,
            metrics=[Metric(name, number + 1 / 3, now, 100) for name in names],
            params=[Param(key, value) for key, value in values["params"].items()],
            tags=[RunTag(key, value) for key, value in values["tags"].items()],
        )
    share_view(client, experiment, request_view()[VIEW_TAG], now)
    return experiment


def time_search(address: str, experiment: str, runs: int, tries: int) -> tuple[float, int]:
    """Median seconds and bytes of the call that a page of runs makes.

    Args:
        address: The server's.
        experiment: Id of the experiment.
        runs: Runs asked for.
        tries: How often.
    """
    body = {
        "experiment_ids": [experiment],
        "run_view_type": "ACTIVE_ONLY",
        "order_by": ["metrics.`val/mIoU` DESC"],
        "max_results": runs,
    }
    times, size = [], 0
    for _ in range(tries):
        started = time.perf_counter()
        size = len(_post(f"{address}/ajax-api/2.0/mlflow/runs/search", body))
        times.append(time.perf_counter() - started)
    return statistics.median(times), size


def _post(address: str, body: dict[str, Any]) -> bytes:
    answer = requests.post(address, json=body, timeout=120)
    answer.raise_for_status()
    return answer.content


def _wait(address: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"{address}: MLflow's server did not start")


if __name__ == "__main__":
    run(command)
