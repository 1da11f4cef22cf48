"""The system's Chromium, headless, driven by Playwright."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_MS = 60_000


def find_chromium() -> str | None:
    """Chromium's path, None where it is not installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def open_page(executable: str) -> Iterator[Page]:
    """A page of a fresh Chromium, which ends with the block.

    Inside the block the thread counts as one with a running event loop: `asyncio.run` refuses.
    """
    expect.set_options(timeout=_TIMEOUT_MS)
    with (
        sync_playwright() as playwright,
        # Playwright adds what a test needs: no sync, no updates, no first-run page, no /dev/shm.
        playwright.chromium.launch(
            executable_path=executable,
            args=["--disable-gpu", "--disable-quic"],
            chromium_sandbox=False,
            timeout=2 * _TIMEOUT_MS,
        ) as browser,
    ):
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(_TIMEOUT_MS)
        yield page


def expect_texts(page: Page, *texts: str) -> None:
    """Wait until all of these can be read on the page."""
    for text in texts:
        expect(page.locator("body")).to_contain_text(text, use_inner_text=True)


def starting_with(text: str) -> re.Pattern[str]:
    """Pattern of what begins with a text."""
    return re.compile("^" + re.escape(text))


def save_screenshot(page: Page, path: Path, *, height: int, width: int = 1400) -> None:
    """Save what a window shows as PNG."""
    page.set_viewport_size({"width": width, "height": height})
    # Charts draw themselves again for the new size.
    page.wait_for_timeout(1000)
    page.screenshot(path=path)
