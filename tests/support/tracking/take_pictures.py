"""Screenshots for the README from a real storage folder: compare page, run page, report.

Usage: python tests/support/tracking/take_pictures.py STORAGE OUTPUT, after `make demo`.
"""

import json
import sys
import urllib.parse
from pathlib import Path

from chromium import Page, PageTimeoutError, browser, chromium
from mlflow import MlflowClient
from PIL import Image
from tracking_server import TrackingServer

from spikeseg.platform.runs.html_report import write_report

_PARAMETERS = ("model.neuron.timesteps",)
_METRICS = ("val/mIoU", "energy/mJ")


def choose(page: Page, box: int, names: tuple[str, ...]) -> None:
    """Add entries in one of the compare page's two boxes: 0 parameters, 1 metrics."""
    page.focus(
        f"document.querySelectorAll('input[role=combobox]')[{box}].parentElement.parentElement"
    )
    for name in names:
        page.type(name)
    page.click("Parameters:")


def open_compare_page(page: Page, url: str, experiment: str, runs: list[str]) -> None:
    """Open MLflow's compare page and choose neuron parameters and scores on it."""
    query = {"runs": json.dumps(runs), "experiments": json.dumps([experiment])}
    page.open(f"{url}/#/compare-runs?{urllib.parse.urlencode(query)}")
    page.wait_text(f"Comparing {len(runs)} Runs from 1 Experiment", "Parallel Coordinates Plot")
    page.dismiss_assistant()
    choose(page, 0, _PARAMETERS)
    choose(page, 1, _METRICS)


def main(storage: Path, output: Path) -> None:
    """Take all pictures of the storage's newest sweep and its newest training."""
    executable = chromium()
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
        with browser(executable) as page:
            chosen = [run.info.run_id for run in trials]
            open_compare_page(page, server.url, trials[0].info.experiment_id, chosen)
            save(page, output / "compare.png", height=640)
            experiment, run_id = training.info.experiment_id, training.info.run_id
            page.open(f"{server.url}/#/experiments/{experiment}/runs/{run_id}/model-metrics")
            page.wait_text("Add chart")
            page.dismiss_assistant()
            open_picture(page, "val/rows")
            save(page, output / "run.png", height=900)
            page.open(report.absolute().as_uri())
            page.wait_text("Scores")
            save(page, output / "report.png", height=1000)
    finally:
        server.kill()


def open_picture(page: Page, name: str) -> None:
    """On a run's metrics page, open a picture's card in full and go to its last step."""
    # Charts are drawn when they come into sight, so the window is tall.
    page.resize(1400, 5200)
    page.wait_text(name)
    cards = "[...document.querySelectorAll('[data-testid=experiment-view-compare-runs-card]')]"
    card = f"{cards}.find(c => c.innerText.startsWith({json.dumps(name)}))"
    page.focus(f"{card}.querySelector('[data-component-id=fullscreen_button_chartcard]')")
    page.resize(1400, 900)
    page.wait("document.querySelector('[role=dialog]')")
    # The last mark of the slider lies beside the field that shows the step.
    field = "[...document.querySelectorAll('[role=dialog] input[type=number]')].at(-1)"
    slider = "document.querySelector('[role=dialog] [role=slider]')"
    picture = "document.querySelector('[role=dialog] img')"
    for _ in range(6):
        # The page draws itself anew on its own; a press at that moment moves nothing.
        left = page.place(field)[0]
        _, top, _, height = page.place(slider)
        page.press(left - 30, top + height / 2)
        try:
            page.wait(f"{picture} && {picture}.naturalWidth > 100", timeout=10)
            break
        except PageTimeoutError:
            continue
    else:
        shown = page.evaluate(f"[{slider}, {picture}].map(e => e ? e.outerHTML : 'none')")
        raise PageTimeoutError(f"{name}: six presses brought no picture: {shown}")
    page.evaluate(f"{picture}.scrollIntoView({{block: 'center'}})")


def save(page: Page, path: Path, *, height: int) -> None:
    """A screenshot with few colours, which makes it small."""
    page.screenshot(path, width=1400, height=height)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
