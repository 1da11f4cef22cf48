"""Screenshots for the documents from a real storage folder: runs, charts, run page, report.

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
from spikeseg.platform.tracking.pages.page_links import link_experiment, link_run
from spikeseg.platform.tracking.pages.shared_view import view_key


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
        # The two best trials, side by side.
        trials.sort(key=lambda trial: -trial.data.metrics.get("val/mIoU", 0.0))
        report = write_report(
            [trial.info.run_id for trial in trials[:2]],
            storage=storage,
            output=output / "report.html",
            words=[trial.data.tags["run"] for trial in trials[:2]],
        )
        with open_page(executable) as page:
            parent = client.get_run(trials[0].data.tags["mlflow.parentRunId"])
            at, view = parent.info.experiment_id, view_key(parent.data.tags)
            page.goto(link_experiment(server.url, at, view))
            expect_texts(page, "Run Name")
            save(page, output / "runs.png", height=640)
            page.goto(link_experiment(server.url, at, view, charts=True))
            expect_texts(page, "Parallel Coordinates")
            save(page, output / "compare.png", height=860)
            page.goto(link_run(server.url, at, training.info.run_id))
            expect_texts(page, "Description")
            page.wait_for_function("document.querySelector(\"img[src*='strip']\").naturalWidth > 0")
            save(page, output / "run.png", height=900, width=1440)
            page.goto(report.absolute().as_uri())
            expect_texts(page, "Scores")
            save(page, output / "report.png", height=900, width=1440)
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


def save(page: Page, path: Path, *, height: int, width: int = 1400) -> None:
    """A screenshot with few colours, which makes it small."""
    save_screenshot(page, path, height=height, width=width)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
