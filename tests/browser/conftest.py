"""A browser, a sweep's runs in MLflow as the platform writes them, and a server over both."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import find_chromium, open_page
from playwright.sync_api import Page
from tracked_sweep import TrackedSweep, write_sweep
from tracking_server import TrackingServer


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's path."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine (Debian's package is `chromium`)")
    return executable


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """One page of headless Chromium; closed after each test, as other tests run event loops."""
    with open_page(chromium) as opened:
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
def server(chromium: str, sweep: TrackedSweep) -> Iterator[TrackingServer]:
    """MLflow's server over the sweep's storage; not started where there is no Chromium."""
    running = TrackingServer(sweep.storage)
    running.start()
    yield running
    running.kill()
