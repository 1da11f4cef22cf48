"""A browser, a sweep's runs in MLflow as the platform writes them, and a server over both."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, browser, chromium
from tracked_sweep import TrackedSweep, write_sweep
from tracking_server import TrackingServer


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    """One page of headless Chromium."""
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian's package is `chromium`)")
    with browser(executable) as opened:
        yield opened


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for screenshots: SPIKESEG_PICTURES, else a temporary one."""
    chosen = os.environ.get("SPIKESEG_PICTURES")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> TrackedSweep:
    """A sweep of eight trials, recorded and sent as the platform does it."""
    return write_sweep(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="session")
def server(page: Page, sweep: TrackedSweep) -> Iterator[TrackingServer]:
    """MLflow's server over the sweep's storage; not started where there is no browser."""
    running = TrackingServer(sweep.storage)
    running.start()
    yield running
    running.kill()
