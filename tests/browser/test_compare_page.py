"""The charts that a sweep's view opens with: what it varies against its objectives."""

from pathlib import Path

import pytest
from chromium import save_screenshot
from mlflow import MlflowClient
from playwright.sync_api import Page, expect
from tracked_sweep import VARIED, TrackedSweep
from tracking_server import TrackingServer

from spikeseg.platform.tracking.pages.page_links import link_experiment

pytestmark = pytest.mark.browser


def test_the_charts_of_a_sweep_s_view_compare_its_trials_and_no_baseline(
    page: Page, server: TrackingServer, sweep: TrackedSweep, pictures: Path
) -> None:
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(sweep.experiment)
    assert experiment is not None
    page.goto(link_experiment(server.url, experiment.experiment_id, "neuron", charts=True))
    cards = page.get_by_test_id("experiment-view-compare-runs-card")
    parallel = cards.filter(has_text="Parallel Coordinates")
    expect(parallel).to_be_visible()
    expect(cards.first).to_contain_text("Parallel Coordinates")
    expect(cards.nth(1)).to_contain_text("energy/mJ vs. val/mIoU")
    # Long names are cut in their middle; the axes are drawn some time after their card.
    for name in ("val/mIoU", "energy/mJ", *(key[-3:] for key in VARIED)):
        expect(parallel).to_contain_text(name, use_inner_text=True)
    assert "baseline" not in parallel.inner_text()
    save_screenshot(page, pictures / "compare.png", height=640)
