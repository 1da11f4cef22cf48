"""The page that `spikeseg ui` names: a table of runs, whatever mode MLflow would begin in."""

from pathlib import Path

import pytest
from chromium import save_screenshot
from mlflow import MlflowClient
from playwright.sync_api import Page, expect
from tracked_sweep import TrackedSweep
from tracking_server import TrackingServer

from spikeseg.platform.tracking.page_links import link_experiment

pytestmark = pytest.mark.browser


def test_the_named_page_opens_on_the_runs_and_not_on_a_welcome(
    page: Page, server: TrackingServer, sweep: TrackedSweep, pictures: Path
) -> None:
    experiment = MlflowClient(server.url).get_experiment_by_name(sweep.experiment)
    assert experiment is not None
    page.goto(link_experiment(server.url, experiment.experiment_id))
    expect(page.get_by_text("Run Name", exact=True).first).to_be_visible()
    expect(page.get_by_text(sweep.experiment).first).to_be_visible()
    save_screenshot(page, pictures / "experiment.png", height=640)
    assert "Start Demo" not in page.locator("body").inner_text()
