"""The UI's compare page shows what a sweep is about, as a person sees it."""

from pathlib import Path

import pytest
from chromium import save_screenshot
from mlflow import MlflowClient
from playwright.sync_api import Page, expect
from take_pictures import open_compare_page
from tracked_sweep import TrackedSweep
from tracking_server import TrackingServer

pytestmark = pytest.mark.browser

CHOSEN_METRICS = ("val/mIoU", "energy/mJ")
AXES = (
    "loss.mask_weight",
    "model.neuron.levels",
    "model.neuron.normalization",
    "model.neuron.timesteps",
    *CHOSEN_METRICS,
)


def test_the_compare_page_shows_neuron_and_loss_weights_against_scores_of_eight_trials(
    page: Page, server: TrackingServer, sweep: TrackedSweep, pictures: Path
) -> None:
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(sweep.experiment)
    assert experiment is not None
    open_compare_page(page, server.url, experiment.experiment_id, sweep.trials)

    for axis in AXES:
        expect(page.locator(".parcoords").get_by_text(axis, exact=True)).to_be_visible()
    save_screenshot(page, pictures / "compare.png", height=640)
    shown = " ".join(page.locator("body").inner_text().split())
    runs = [client.get_run(run_id) for run_id in sweep.trials]
    for number, run in enumerate(runs):
        assert f"trial-{number}" in shown
        assert run.info.run_id in shown
    for axis in AXES[:4]:
        assert " ".join([axis, *(run.data.params[axis] for run in runs)]) in shown
    # The table of metrics holds only the columns in sight.
    scores = shown[shown.index("Metrics Show diff") : shown.index("Artifacts")].split()
    for metric in CHOSEN_METRICS:
        assert metric in scores
    measured = {f"{run.data.metrics['val/mIoU']:.2f}" for run in runs}
    assert len(measured & set(scores)) >= 4
