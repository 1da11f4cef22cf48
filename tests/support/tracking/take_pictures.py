"""Screenshots for the README from a real storage folder: compare page, run page, report.

Usage: python tests/support/tracking/take_pictures.py STORAGE OUTPUT, after `make demo`.
"""

import sys
from pathlib import Path

from chromium import expect_texts, find_chromium, open_page, save_screenshot, starting_with
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Page, expect
from tracking_server import TrackingServer

from spikeseg.platform.runs.html_report import write_report
from spikeseg.platform.tracking.page_links import link_comparison

_PARAMETERS = ("model.neuron.timesteps",)
_METRICS = ("val/mIoU", "energy/mJ")
_CONSTANT = ("val/baseline_majority",)


def choose(page: Page, box: int, names: tuple[str, ...], *, without: tuple[str, ...] = ()) -> None:
    """Choose entries in one of the compare page's two boxes: 0 parameters, 1 metrics.

    MLflow chooses some by itself, of which a narrow box shows the first alone; `without` takes out.
    """
    field = page.get_by_role("combobox").nth(box)
    # A closed box takes no text.
    field.press("ArrowDown")
    for name in (*names, *without):
        field.fill(name)
        entry = page.locator("[aria-selected]").and_(page.get_by_title(name, exact=True))
        if name in without and not entry.count():
            continue
        if (entry.get_attribute("aria-selected") == "true") == (name in without):
            entry.click()
    page.get_by_text("Parameters:", exact=True).click()


def open_compare_page(page: Page, url: str, experiment: str, runs: list[str]) -> None:
    """Open MLflow's compare page and choose neuron parameters and scores on it."""
    page.goto(link_comparison(url, experiment, runs))
    expect_texts(page, f"Comparing {len(runs)} Runs from 1 Experiment", "Parallel Coordinates Plot")
    choose(page, 0, _PARAMETERS)
    choose(page, 1, _METRICS, without=_CONSTANT)


def main(storage: Path, output: Path) -> None:
    """Take all pictures of the storage's newest sweep and its newest training."""
    executable = find_chromium()
    if executable is None:
        sys.exit("no Chromium on this machine (Debian's package is `chromium`)")
    server = TrackingServer(storage)
    server.start()
    try:
        client = MlflowClient(server.url)
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        trials = [run for run in runs if "trial" in run.data.tags]
        trials = [t for t in trials if t.data.tags["sweep"] == trials[0].data.tags["sweep"]]
        training = next(run for run in runs if "test/mIoU" in run.data.metrics)
        report = write_report(
            [training.info.run_id], storage=storage, output=output / "report.html"
        )
        with open_page(executable) as page:
            chosen = [run.info.run_id for run in trials]
            open_compare_page(page, server.url, trials[0].info.experiment_id, chosen)
            save(page, output / "compare.png", height=640)
            experiment, run_id = training.info.experiment_id, training.info.run_id
            page.goto(f"{server.url}/#/experiments/{experiment}/runs/{run_id}/model-metrics")
            expect_texts(page, "Add chart")
            open_picture(page, "val/rows")
            save(page, output / "run.png", height=900)
            page.goto(report.absolute().as_uri())
            expect_texts(page, "Scores")
            save(page, output / "report.png", height=1000)
    finally:
        server.kill()


def open_picture(page: Page, name: str) -> None:
    """On a run's metrics page, open a picture's card in full and go to its last step."""
    # Charts are drawn when they come into sight, so the window is tall.
    page.set_viewport_size({"width": 1400, "height": 7600})
    cards = page.get_by_test_id("experiment-view-compare-runs-card")
    card = cards.filter(has_text=starting_with(name))
    card.locator("[data-component-id=fullscreen_button_chartcard]").click()
    page.set_viewport_size({"width": 1400, "height": 900})
    dialog = page.get_by_role("dialog")
    step = dialog.get_by_role("spinbutton")
    last_step = step.get_attribute("max") or ""
    step.fill(last_step)
    step.blur()
    expect(dialog.get_by_role("slider")).to_have_attribute("aria-valuenow", last_step)
    page.wait_for_function(
        "[...document.querySelectorAll('[role=dialog] img')].some(img => img.naturalWidth > 100)"
    )
    dialog.locator("img").first.scroll_into_view_if_needed()


def save(page: Page, path: Path, *, height: int) -> None:
    """A screenshot with few colours, which makes it small."""
    save_screenshot(page, path, height=height)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
