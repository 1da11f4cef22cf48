"""Seconds until MLflow's pages of an experiment show what they are opened for, in a browser."""

import importlib
import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ...platform.tracking.pages.page_links import link_experiment, link_run

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_MS = 120_000
_WINDOW = {"width": 1440, "height": 900}
_SEARCH = "/runs/search"


class PageTime(NamedTuple):
    """How long a page took.

    Attributes:
        name: What it shows.
        first: Seconds of the first visit, with the page's programs.
        later: Median seconds of later visits.
        largest: Bytes of the largest answer to a search for runs; 0 where there was none.
    """

    name: str
    first: float
    later: float
    largest: int


def find_browser() -> str | None:
    """Path of the system's Chromium; None where there is none."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def time_pages(
    address: str, experiment: str, run_id: str, *, tries: int, browser: str
) -> list[PageTime]:
    """Open table, charts and a run's page, each first in a browser without a cache.

    Args:
        address: The server's.
        experiment: Id of the experiment; it has the shared view `runs`.
        run_id: Id of one of its runs.
        tries: Visits of each page, at least 2.
        browser: Path of Chromium.
    """
    # Of the extra `dev`: the command goes on without it.
    sync_playwright = importlib.import_module("playwright.sync_api").sync_playwright
    pages: list[tuple[str, str, Callable[[Any], Any]]] = [
        ("table of runs", link_experiment(address, experiment, "runs"), _first_row),
        ("charts", link_experiment(address, experiment, "runs", charts=True), _drawn_axes),
        ("a run's page", link_run(address, experiment, run_id), _first_metric),
    ]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=browser, args=["--disable-gpu"], chromium_sandbox=False
        ) as chromium,
    ):
        return [_time_page(chromium, name, link, shown, tries=tries) for name, link, shown in pages]


def _time_page(
    chromium: Any, name: str, link: str, shown: Callable[[Any], Any], *, tries: int
) -> PageTime:
    context = chromium.new_context(viewport=_WINDOW)
    sizes, times = [0], []
    try:
        for _ in range(tries):
            page = context.new_page()
            answers: list[Any] = []
            page.on("requestfinished", lambda item, kept=answers: kept.append(item))
            started = time.perf_counter()
            page.goto(link, wait_until="commit", timeout=_TIMEOUT_MS)
            shown(page).wait_for(state="visible", timeout=_TIMEOUT_MS)
            times.append(time.perf_counter() - started)
            # Read afterwards: asking for bodies while the page loads would slow it down.
            searches = [item for item in answers if _SEARCH in item.url]
            sizes += [len(item.response().body()) for item in searches]
            page.close()
    finally:
        context.close()
    return PageTime(name, times[0], statistics.median(times[1:]), max(sizes))


def _first_row(page: Any) -> Any:
    return page.get_by_role("row").get_by_role("link").filter(has_text="levels #").first


def _drawn_axes(page: Any) -> Any:
    """The last axis of the parallel coordinates, which is drawn after the lines."""
    card = page.get_by_test_id("experiment-view-compare-runs-card").first
    return card.get_by_text("val/mIoU").last


def _first_metric(page: Any) -> Any:
    return page.get_by_text("val/mIoU").first
