"""The same path on Ray: two Train workers, and a job sent to a head."""

import contextlib
import gzip
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack

pytestmark = pytest.mark.ray

SMALL = (
    "trainer.max_steps=4",
    "trainer.evaluate_every=2",
    "trainer.micro_batch_size=4",
    "data.transform.crop=[32, 32]",
    "trainer.energy_images=2",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shapes"
    pack("shapes", Shapes(ShapesOptions(size=(32, 32), train=16, val=4, test=4)), Path(), folder)
    return folder


def shell(*arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spikeseg.jobs.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_two_ray_workers_train_score_and_show_progress(data: Path, tmp_path: Path) -> None:
    done = shell(
        "train", "shapes_tiny", f"data.path={data}", *SMALL, "--storage", str(tmp_path / "runs")
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "starting 2 Ray Train workers" in done.stdout
    assert "step 4: val mIoU" in done.stdout
    folder = next((tmp_path / "runs").glob("shapes_tiny-*"))
    state = json.loads((folder / "checkpoints" / "step-00000004" / "state.json").read_text())
    assert state["environment"]["workers"] == 2
    counted = sum(map(sum, json.loads((folder / "result.json").read_text())["confusion"]))
    assert counted == 4 * 32 * 32, "both workers together count every test pixel once"


@pytest.mark.slow
def test_rank_0_of_two_workers_leaves_a_profile_where_the_line_says(
    data: Path, tmp_path: Path
) -> None:
    runs = str(tmp_path / "runs")
    given = ("train", "shapes_tiny", f"data.path={data}", *SMALL, "--storage", runs)
    refused = shell(*given, "--profile-steps", "5-6")
    assert refused.returncode == 2
    assert "profile of step 5: the training has 4 steps" in refused.stderr
    done = shell(*given, "--profile-steps", "2-2")
    assert done.returncode == 0, done.stderr + done.stdout
    trace = next((tmp_path / "runs").glob("*/profile/steps-2-2.json.gz"))
    assert f"profile of steps 2 to 2: {trace} (" in done.stdout
    assert f"profile:       {trace}    # opens at https://ui.perfetto.dev" in done.stdout
    names = {
        event["name"] for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    }
    assert {"step 2", "sum over workers", "gloo:all_reduce"} <= names


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head on loopback with ports, folder and token of its own; it ends with the test."""
    # A home without a token, as a new user has, starts no head that asks for one.
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    port, dashboard = free_port(), free_port()
    log = (tmp_path / "head.log").open("w")
    process = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=3"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
            *(f"--dashboard-agent-listen-port={free_port()}",),
            "--disable-usage-stats",
        ],
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 120
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "head.log").read_text()
            assert time.monotonic() < deadline, "the head's dashboard did not open within 120 s"
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_submit_ships_the_code_streams_logs_and_returns_the_jobs_own_code(
    head: str, data: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    done = shell(
        *("submit", "--address", head, "--", "train", "shapes_tiny", f"data.path={data}", *SMALL),
        *("trainer.workers=1", "--storage", str(storage)),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"head {head} (--address)" in done.stdout
    assert "step 4: val mIoU" in done.stdout
    folder = next(storage.glob("shapes_tiny-*"))
    assert (folder / "result.json").is_file()

    refused = shell(
        *("submit", "--address", head, "--", "train", "shapes_tiny", "trainer.max_step=1"),
        *("--storage", str(storage)),
    )
    assert refused.returncode == 2, refused.stderr + refused.stdout
    assert "no such field, did you mean 'max_steps'?" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("token", "sentence"),
    [("wrong", "refuses this machine's token"), (None, "there is no token")],
    ids=["wrong token", "no token"],
)
def test_a_head_that_does_not_know_us_is_told_in_one_sentence(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, sentence: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    if token is not None:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    refused = shell("submit", "--address", head, "--", "doctor")
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
