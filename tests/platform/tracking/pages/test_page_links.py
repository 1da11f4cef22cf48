"""Links to MLflow's pages: they land on runs, and say where runs are if there are none."""

from pathlib import Path

from spikeseg.platform.tracking.mlflow_client import connect
from spikeseg.platform.tracking.pages.page_links import (
    describe_pages,
    link_experiment,
    link_run,
)
from spikeseg.platform.tracking.pages.shared_view import request_view
from spikeseg.platform.tracking.tracking_uri import tracking_uri

SERVER = "http://127.0.0.1:5000"


def record(storage: Path, experiment: str, start: int, parent: str | None = None) -> str:
    client = connect(tracking_uri(storage))
    known = client.get_experiment_by_name(experiment)
    home = known.experiment_id if known else client.create_experiment(experiment)
    tags = {} if parent is None else {"mlflow.parentRunId": parent}
    return client.create_run(home, start_time=start, tags=tags).info.run_id


def test_the_page_of_the_newest_runs_experiment_is_the_first(tmp_path: Path) -> None:
    record(tmp_path, "late name, early run", 1000)
    record(tmp_path, "newest", 3000)
    record(tmp_path, "middle", 2000)
    client = connect(tracking_uri(tmp_path))
    home = client.get_experiment_by_name("newest")
    assert home is not None
    pages = describe_pages(SERVER, tmp_path)
    assert pages.first == link_experiment(SERVER, home.experiment_id)
    assert pages.first.endswith(
        f"/#/experiments/{home.experiment_id}/runs?workflowType=machine_learning"
    )
    runs, page = pages.lines
    assert runs == f"runs of newest: {pages.first}"
    assert page.startswith(f"the newest: {SERVER}/#/experiments/{home.experiment_id}/runs/")


def test_trials_of_the_newest_sweep_have_a_page_that_compares_them(tmp_path: Path) -> None:
    parent = record(tmp_path, "sweeps", 1000)
    trials = [record(tmp_path, "sweeps", 2000 + n, parent) for n in range(3)]
    record(tmp_path, "sweeps", 500, parent="another")
    _, compared, page, others = describe_pages(SERVER, tmp_path).lines
    home = connect(tracking_uri(tmp_path)).get_run(trials[0]).info.experiment_id
    assert compared.endswith(link_experiment(SERVER, home, charts=True))
    assert page.endswith(link_run(SERVER, home, parent))
    assert others == f"all runs of sweeps: {link_experiment(SERVER, home)}"


def test_the_pages_of_a_sweep_open_with_the_view_that_its_run_asks_for(tmp_path: Path) -> None:
    parent = record(tmp_path, "sweeps", 1000)
    for number in range(2):
        record(tmp_path, "sweeps", 2000 + number, parent)
    client = connect(tracking_uri(tmp_path))
    for name, value in request_view("abc", sweep="sweep-a").items():
        client.set_tag(parent, name, value)
    pages = describe_pages(SERVER, tmp_path)
    assert pages.first.endswith("&viewStateShareKey=abc")
    assert pages.lines[1].endswith("&viewStateShareKey=abc&compareRunsMode=CHART")


def test_a_storage_without_runs_says_so_and_names_neighbours_that_have_some(
    tmp_path: Path,
) -> None:
    for name in ("demo", "runs"):
        (tmp_path / name).mkdir()
    record(tmp_path / "demo", "shapes", 1000)
    pages = describe_pages(SERVER, tmp_path / "runs")
    assert pages.lines == [
        f"{tmp_path / 'runs'} holds no run yet",
        f"runs may be in: spikeseg ui --storage {tmp_path / 'demo'}",
    ]
    assert pages.first == SERVER
