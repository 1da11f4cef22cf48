"""Whatever a command starts on this machine listens on loopback alone; tokens are private."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from listening import Socket, listening, run_and_listen

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack

SMALL = (
    "trainer.max_steps=4",
    "trainer.evaluate_every=2",
    "trainer.micro_batch_size=4",
    "data.transform.crop=[32, 32]",
    "trainer.energy_images=2",
)
_LISTENS = (
    "import socket, subprocess, sys\n"
    "six = socket.{family} == socket.AF_INET6\n"
    "held = socket.create_server(({host!r}, 0), family=socket.{family}, dualstack_ipv6=six)\n"
    "print('open', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "shapes"
    pack("shapes", Shapes(ShapesOptions(size=(32, 32), train=16, val=4, test=4)), Path(), folder)
    return folder


def user_without_token(home: Path) -> dict[str, str]:
    """Environment of a user who never ran Ray, with a permissive umask as is usual."""
    home.mkdir()
    free = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**free, "HOME": str(home)}


def spikeseg_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "spikeseg.jobs.cli", *arguments]


def assert_loopback(found: set[Socket]) -> None:
    outside = sorted(one for one in found if not one.is_loopback)
    assert not outside, outside


@pytest.mark.parametrize(
    ("host", "family", "safe"),
    [
        ("127.0.0.1", "AF_INET", True),
        ("127.3.2.1", "AF_INET", True),
        ("::1", "AF_INET6", True),
        ("::ffff:127.0.0.1", "AF_INET6", True),
        ("0.0.0.0", "AF_INET", False),
        ("::", "AF_INET6", False),
    ],
)
def test_a_grandchild_that_listens_is_seen(host: str, family: str, safe: bool) -> None:
    code = _LISTENS.format(host=host, family=family)
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "open\n":
                pytest.skip(f"this machine does not listen on {host}")
            found = listening(process.pid)
        finally:
            process.stdin.close()
    assert [one.is_loopback for one in found] == [safe], found


def test_a_process_that_left_its_parent_is_seen_while_a_command_runs() -> None:
    inner = "import socket, time; held = socket.create_server(('0.0.0.0', 0)); time.sleep(2)"
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {inner!r}])"
    outer = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {middle!r}], start_new_session=True)\n"
        "print('said'); time.sleep(1); sys.exit(3)\n"
    )
    done, found = run_and_listen([sys.executable, "-c", outer], os.environ)
    assert done.returncode == 3
    assert done.stdout == "said\n"
    assert [one.host for one in found] == ["0.0.0.0"]
    with pytest.raises(AssertionError, match=r"0\.0\.0\.0"):
        assert_loopback(found)


@pytest.mark.slow
def test_a_training_in_one_process_listens_nowhere(data: Path, tmp_path: Path) -> None:
    done, found = run_and_listen(
        spikeseg_command(
            *("train", "shapes_tiny", f"data.path={data}", *SMALL, "trainer.workers=0"),
            *("--storage", str(tmp_path / "runs")),
        ),
        user_without_token(tmp_path / "home"),
    )
    assert done.returncode == 0, done.stdout
    assert not found


@pytest.mark.slow
@pytest.mark.ray
def test_a_training_on_two_workers_listens_on_loopback(data: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done, found = run_and_listen(
        spikeseg_command(
            *("train", "shapes_tiny", f"data.path={data}", *SMALL, "trainer.workers=2"),
            *("--storage", str(tmp_path / "runs")),
        ),
        user_without_token(home),
    )
    assert done.returncode == 0, done.stdout
    names = " ".join(one.process for one in found)
    assert "gcs_server" in names, names
    assert "raylet" in names, names
    assert "RayTrainWorker" in names, names
    assert_loopback(found)
    assert stat.S_IMODE((home / ".ray" / "auth_token").stat().st_mode) == 0o600
    # Ray's sockets are in there; it opens its own folders to everyone.
    assert stat.S_IMODE(Path(f"/tmp/spikeseg-ray-{os.getuid()}").stat().st_mode) == 0o700


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_listens_on_loopback(data: Path, tmp_path: Path) -> None:
    done, found = run_and_listen(
        spikeseg_command(
            *("sweep", "demo", f"data.path={data}", *SMALL, "optimizer.warmup_steps=2"),
            *("--trials", "2"),
            *("--storage", str(tmp_path / "runs")),
        ),
        user_without_token(tmp_path / "home"),
    )
    assert done.returncode == 0, done.stdout
    assert "gcs_server" in " ".join(one.process for one in found)
    assert_loopback(found)


@pytest.mark.slow
def test_the_ui_listens_on_loopback(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        spikeseg_command("ui", "--storage", str(tmp_path / "runs"), "--port", str(port)),
        env=user_without_token(tmp_path / "home"),
    )
    try:
        found: set[Socket] = set()
        deadline = time.monotonic() + 120
        while not found:
            assert time.monotonic() < deadline, "nothing listens within 120 s"
            assert process.poll() is None
            time.sleep(0.2)
            found = listening(process.pid)
        # What it starts beside its server would be there by then.
        time.sleep(5)
        assert_loopback(found | listening(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
