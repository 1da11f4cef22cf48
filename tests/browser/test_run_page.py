"""By the UI alone a person finds a sweep's best run, what it was made of, and how to repeat it."""

import time
from pathlib import Path

import pytest
from chromium import Page
from mlflow import MlflowClient
from take_pictures import open_picture
from tracked_sweep import TrackedSweep
from tracking_server import TrackingServer

pytestmark = pytest.mark.browser


def test_from_the_list_of_runs_a_person_reaches_the_best_run_and_what_it_was_made_of(
    page: Page, server: TrackingServer, sweep: TrackedSweep, pictures: Path
) -> None:
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(sweep.experiment)
    assert experiment is not None
    best = client.get_run(sweep.best)
    runs = f"{server.url}/#/experiments/{experiment.experiment_id}/runs"
    page.open(f"{runs}?orderByKey=metrics.%60val%2FmIoU%60&orderByAsc=false")
    page.wait_text(best.info.run_name or "")
    page.dismiss_assistant()
    names = "[...document.querySelectorAll('[role=row] a')].map(a => a.innerText.trim())"
    page.wait(f"{names}.some(name => name.startsWith('trial-'))")
    listed = [name for name in page.evaluate(names) if name.startswith("trial-")]
    assert listed[0] == best.info.run_name

    page.click(best.info.run_name or "")
    page.wait_text("Repeat this run", "spikeseg train shapes_tiny", "git_sha", "data_digest")
    text = page.text()
    timesteps = best.data.params["model.neuron.timesteps"]
    assert f"model.neuron.timesteps={timesteps}" in text
    assert best.data.tags["git_sha"][:12] in text
    assert best.inputs is not None
    assert best.inputs.dataset_inputs[0].dataset.digest[:8] in text
    assert f"{best.data.metrics['val/mIoU']:.2f}"[:4] in text

    page.resize(1400, 3200)
    page.click("Model metrics")
    page.wait_text("val/mIoU", "train/loss", "energy/mJ")
    open_picture(page, "val/rows")
    page.screenshot(pictures / "run.png", width=1400, height=900)


@pytest.mark.slow
def test_five_hundred_runs_open_in_a_time_that_is_printed(
    page: Page, server: TrackingServer
) -> None:
    client = MlflowClient(server.url)
    experiment = client.create_experiment(f"many-{time.time_ns()}")
    store = MlflowClient(f"sqlite:///{server.storage / 'mlflow.db'}")
    for number in range(500):
        run = store.create_run(experiment, run_name=f"run-{number}")
        store.log_metric(run.info.run_id, "val/mIoU", number / 10, step=1)
        store.set_terminated(run.info.run_id)
    started = time.monotonic()
    page.open(f"{server.url}/#/experiments/{experiment}/runs")
    page.wait_text("run-499", timeout=120)
    print(f"experiment page with 500 runs: first rows after {time.monotonic() - started:.1f} s")
