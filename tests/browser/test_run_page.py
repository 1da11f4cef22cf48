"""By the UI alone a person finds a sweep's best run, what it was made of, and how to repeat it."""

from pathlib import Path

import pytest
from chromium import expect_texts, save_screenshot
from mlflow import MlflowClient
from playwright.sync_api import Page, expect
from take_pictures import open_picture
from tracked_sweep import TrackedSweep
from tracking_server import TrackingServer

from spikeseg.jobs.benchmark.browser_pages import time_pages
from spikeseg.jobs.benchmark.tracking_pages import fill_experiment
from spikeseg.platform.tracking.pages.page_links import link_run

pytestmark = pytest.mark.browser


@pytest.mark.slow
def test_from_the_list_of_runs_a_person_reaches_the_best_run_and_what_it_was_made_of(
    page: Page, server: TrackingServer, sweep: TrackedSweep, pictures: Path
) -> None:
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(sweep.experiment)
    assert experiment is not None
    best = client.get_run(sweep.best)
    runs = f"{server.url}/#/experiments/{experiment.experiment_id}/runs"
    page.goto(f"{runs}?orderByKey=metrics.%60val%2FmIoU%60&orderByAsc=false")
    trials = page.get_by_role("row").get_by_role("link").filter(has_text="#")
    expect(trials.first).to_have_text(best.info.run_name or "")

    trials.first.click()
    expect_texts(page, "Repeat this run", "spikeseg train shapes_tiny", "git_sha", "data_digest")
    text = page.locator("body").inner_text()
    timesteps = best.data.params["model.neuron.timesteps"]
    assert f"model.neuron.timesteps={timesteps}" in text
    assert best.data.tags["git_sha"][:12] in text
    assert best.inputs is not None
    assert best.inputs.dataset_inputs[0].dataset.digest[:8] in text
    assert f"{best.data.metrics['val/mIoU']:.2f}"[:4] in text

    page.set_viewport_size({"width": 1400, "height": 3200})
    page.get_by_text("Model metrics", exact=True).click()
    expect_texts(page, "val/mIoU", "train/loss", "energy/mJ")
    open_picture(page, "val/rows")
    save_screenshot(page, pictures / "run.png", height=900)


@pytest.mark.slow
def test_values_pictures_and_sentence_lie_inside_of_the_window(
    page: Page, server: TrackingServer, sweep: TrackedSweep, pictures: Path
) -> None:
    run = MlflowClient(server.url).get_run(sweep.best)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(link_run(server.url, run.info.experiment_id, sweep.best))
    expect_texts(page, "Description", "val/mIoU")
    strip = page.locator("img[src*='strip.png']")
    expect(strip).to_be_visible()
    page.wait_for_function("document.querySelector(\"img[src*='strip']\").naturalWidth > 700")
    value = page.get_by_text(str(run.data.metrics["val/mIoU"])[:8]).first
    sentence = page.get_by_text(f"{run.data.metrics['val/mIoU']:.1f} % mIoU on val").first
    for part in (strip, page.get_by_text("Value", exact=True).first, value, sentence):
        box = part.bounding_box()
        assert box is not None
        assert box["x"] >= 0 and box["x"] + box["width"] <= 1440
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900
    page.screenshot(path=pictures / "run_overview.png")
    hidden = page.evaluate(
        """() => {
            const img = document.querySelector("img[src*='strip']");
            const bottom = img.getBoundingClientRect().bottom;
            const cut = [];
            for (let node = img.parentElement; node; node = node.parentElement) {
                if (getComputedStyle(node).overflowY === "hidden") {
                    cut.push(bottom - node.getBoundingClientRect().bottom);
                }
            }
            return Math.max(0, ...cut);
        }"""
    )
    assert hidden <= 1, "MLflow folds a part of the strip away"


@pytest.mark.slow
def test_five_hundred_runs_open_in_times_that_are_printed(
    chromium: str, server: TrackingServer
) -> None:
    experiment = fill_experiment(server.storage, 500)
    runs = MlflowClient(server.url).search_runs([experiment], max_results=1)
    times = time_pages(server.url, experiment, runs[0].info.run_id, tries=2, browser=chromium)
    for item in times:
        print(f"{item.name}: {item.first:.1f} s, then {item.later:.1f} s, {item.largest} bytes")
    table, charts, _ = times
    assert 0 < table.largest < 2_000_000
    assert 0 < charts.largest < 2_000_000
