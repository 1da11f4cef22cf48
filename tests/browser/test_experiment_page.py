"""The page that `spikeseg ui` names: a table of runs, whatever mode MLflow would begin in."""

from pathlib import Path

import pytest
from chromium import save_screenshot
from mlflow import MlflowClient
from playwright.sync_api import Page, expect
from tracked_sweep import TrackedSweep
from tracking_server import TrackingServer

from spikeseg.platform.tracking.pages.page_links import describe_pages, link_experiment
from spikeseg.platform.tracking.pages.shared_view import (
    CONFIGURATION,
    VIEW_TAG,
    request_view,
    share_view,
)

pytestmark = pytest.mark.browser


def test_the_named_page_answers_which_neuron_is_best(
    page: Page, server: TrackingServer, sweep: TrackedSweep, pictures: Path
) -> None:
    client = MlflowClient(server.url)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(describe_pages(server.url, sweep.storage).first)
    expect(page.get_by_text("Run Name", exact=True).first).to_be_visible()
    expect(page.get_by_text(sweep.experiment).first).to_be_visible()
    for head in ("val/mIoU", "energy/mJ", "snn/firing_rate", "T", "D", "normalization", "state"):
        column = page.get_by_role("columnheader").filter(has_text=head).first
        expect(column).to_be_visible()
        box = column.bounding_box()
        assert box is not None and box["x"] + box["width"] <= 1440
    names = page.get_by_role("row").get_by_role("link").filter(has_text="#")
    best = client.get_run(sweep.best)
    expect(names.first).to_have_text(best.info.run_name or "")
    assert names.count() == len(sweep.trials)
    save_screenshot(page, pictures / "experiment.png", height=640)
    # MLflow opens its Assistant over a third of the window on a first visit, unless told not to.
    assert page.locator("[data-component-id*='assistant.chat_panel']").count() == 0
    assert "Start Demo" not in page.locator("body").inner_text()
    assert "invalid" not in page.locator("body").inner_text()
    # A click leads to an address without the mode: the browser has to know it.
    names.first.click()
    expect(page.get_by_text("Description").first).to_be_visible()
    assert page.get_by_text("Judges", exact=True).count() == 0


def test_a_sweep_with_seeds_is_ranked_by_means_over_them(
    page: Page, server: TrackingServer, sweep: TrackedSweep
) -> None:
    client = MlflowClient(server.url)
    runs = [client.get_run(run_id) for run_id in sweep.trials]
    # The best single training is in one group with the worst.
    runs.sort(key=lambda run: run.data.metrics["val/mIoU"], reverse=True)
    for run, name in zip(runs, ("lucky", *["steady"] * 3, *["low"] * 3, "lucky"), strict=True):
        client.set_tag(run.info.run_id, CONFIGURATION, name)
    at = runs[0].info.experiment_id
    share_view(client, at, request_view("means", sweep="sweep-neuron", means=True)[VIEW_TAG], 1)
    page.goto(link_experiment(server.url, at, "means"))
    groups = page.get_by_text("Group: ")
    expect(groups).to_have_count(3)
    expect(groups.first).to_have_text("Group: steady")
    mean = sum(run.data.metrics["val/mIoU"] for run in runs[1:4]) / 3
    expect(page.get_by_text(f"{mean:.6f}"[:7]).first).to_be_visible()
