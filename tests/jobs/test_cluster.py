"""A head from nothing, as a new user starts one: what it listens on, its jobs, how it ends."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from mistakes import SMALL, pack_good

from spikeseg.platform.cluster.live_metrics import GAUGES

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SPIKESEG = (sys.executable, "-m", "spikeseg.jobs.cli")
STEPS = ("trainer.max_steps=400", "trainer.evaluate_every=400", "trainer.checkpoint_every=2")


class User:
    """A new user: an empty home, a bare PATH, Ray's folder of his own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "RAY_TMPDIR": str(home),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def spikeseg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(*SPIKESEG, *arguments)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    made = User(tmp_path_factory.mktemp("u"))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="u") as short:
        # Sockets have short paths.
        made.environment["RAY_TMPDIR"] = short
        yield made


@pytest.fixture(scope="module")
def head(user: User) -> Iterator[str]:
    port, dashboard = free_ports(2)
    ports = ("--port", str(port), "--dashboard-port", str(dashboard))
    started = user.spikeseg("cluster", "start", *ports, "--cpus", "2")
    assert started.returncode == 0, started.stderr
    assert "listens on loopback alone" in started.stdout
    yield f"http://127.0.0.1:{dashboard}"
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    stopped = user.spikeseg("cluster", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert bystander.poll() is None, "it ends only what it started"
    bystander.kill()
    bystander.wait()
    assert user.spikeseg("cluster", "status").returncode == 1
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_everything_listens_on_loopback_and_the_token_is_private(user: User, head: str) -> None:
    shown = user.spikeseg("cluster", "status")
    assert shown.returncode == 0
    addresses = re.findall(r"^listens: (\S+):\d+", shown.stdout, re.MULTILINE)
    assert len(addresses) > 5
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
    token = user.home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_folder_with_a_long_path_is_refused_before_ray_starts(user: User) -> None:
    long = f"/tmp/{'r' * 90}"
    refused = user.run("env", f"RAY_TMPDIR={long}", *SPIKESEG, "cluster", "start")
    assert refused.returncode == 2
    assert f"RAY_TMPDIR {long}: Ray's sockets below it" in refused.stderr


def test_a_port_that_is_taken_is_one_sentence(user: User, head: str) -> None:
    taken = head.rpartition(":")[2]
    refused = user.spikeseg("cluster", "start", "--port", taken)
    assert refused.returncode == 2
    assert f"--port {taken}: cannot be opened on 127.0.0.1" in refused.stderr


def test_a_node_cannot_join_a_head_on_loopback(user: User, head: str) -> None:
    refused = user.spikeseg("cluster", "start", "--join", "127.0.0.1:6379")
    assert refused.returncode == 2
    assert "takes no node" in refused.stderr


def test_each_printed_line_works_as_printed(user: User, head: str) -> None:
    data = pack_good(user.home / "shapes")
    given = (f"data.path={data}", *SMALL, *STEPS, "trainer.workers=0", "trainer.test=false")
    sent = user.spikeseg(
        *("submit", "--address", head, "--no-wait", "--"),
        *("train", "shapes_tiny", *given, "--storage", "runs", "--name", "first"),
    )
    assert sent.returncode == 0, sent.stderr
    lines = dict(re.findall(r"^(logs|stop|resume): +(.+)$", sent.stdout, re.MULTILINE))
    logs = shlex.split(lines["logs"].replace(" --follow", ""))
    until = time.monotonic() + 120
    while "step " not in (shown := user.run(*logs)).stdout and time.monotonic() < until:
        time.sleep(2)
    assert "step " in shown.stdout, shown.stdout + shown.stderr
    early = user.run(*shlex.split(lines["resume"]))
    assert early.returncode == 2
    assert "still RUNNING" in early.stderr
    stopped = user.run(*shlex.split(lines["stop"]))
    assert stopped.returncode == 0, stopped.stderr
    assert "STOPPED" in stopped.stdout
    assert list((user.home / "runs" / "first" / "checkpoints").iterdir())
    listed = user.spikeseg("jobs", "list", "--address", head)
    assert re.search(r"^first-\S+  STOPPED .* train shapes_tiny", listed.stdout, re.MULTILINE)
    # Cut short, so that the end is soon: what was trained so far is enough.
    resumed = user.run(*shlex.split(lines["resume"]), "--no-wait")
    assert resumed.returncode == 0, resumed.stderr
    lines = dict(re.findall(r"^(logs|stop): +(.+)$", resumed.stdout, re.MULTILINE))
    logs = shlex.split(lines["logs"].replace(" --follow", ""))
    until = time.monotonic() + 120
    while "resumed at step" not in (shown := user.run(*logs)).stdout:
        assert time.monotonic() < until, shown.stdout
        time.sleep(2)
    user.run(*shlex.split(lines["stop"]))


def wait_for_gauges(user: User, wanted: set[str]) -> set[str]:
    """Read what Ray's nodes export for Prometheus until all of these are there; what is missing."""
    folder = Path(user.environment["RAY_TMPDIR"])
    listed = next(folder.rglob("prom_metrics_service_discovery.json"))
    addresses = json.loads(listed.read_text())[0]["targets"]
    missing = set(wanted)
    until = time.monotonic() + 150
    while missing and time.monotonic() < until:
        time.sleep(2)
        for address in addresses:
            with contextlib.suppress(OSError), urlopen(f"http://{address}/metrics") as page:
                missing -= set(re.findall(r"^(ray_spikeseg_\w+)", page.read().decode(), re.M))
    return missing


def test_our_gauges_are_exported_while_a_training_runs(user: User, head: str) -> None:
    data = pack_good(user.home / "observed")
    given = (f"data.path={data}", *SMALL, *STEPS, "trainer.workers=1", "trainer.log_every=1")
    sent = user.spikeseg(
        *("submit", "--address", head, "--no-wait", "--"),
        *("train", "shapes_tiny", *given, "--storage", "runs", "--name", "observed"),
    )
    assert sent.returncode == 0, sent.stderr
    seen = wait_for_gauges(user, {f"ray_{name}" for name in GAUGES if name != "spikeseg_trials"})
    stop = re.search(r"^stop: +(.+)$", sent.stdout, re.MULTILINE)
    assert stop is not None
    user.run(*shlex.split(stop[1]))
    assert not seen, f"not exported: {seen}"


def find_driver(storage: Path) -> int | None:
    """The process of a sweep in a storage that no other test has."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_text().split("\0")
            if "spikeseg.jobs.cli" in words and "sweep" in words and str(storage) in words:
                return int(folder.name)
    return None


def test_a_sweep_that_was_killed_goes_on_by_the_printed_line(
    user: User, head: str, repository: Path
) -> None:
    data = pack_good(user.home / "searched")
    storage = user.home / "sweeps"
    shown = json.loads((repository / "docs" / "grafana_dashboard.json").read_text())
    wanted = {target["expr"] for panel in shown["panels"] for target in panel["targets"]}
    assert wanted == {f"ray_{name}" for name in GAUGES}
    sent = user.spikeseg(
        *("submit", "--address", head, "--no-wait", "--"),
        *("sweep", "demo", f"data.path={data}", *SMALL, "trainer.log_every=1"),
        *("trainer.max_steps=40", "trainer.evaluate_every=40", "optimizer.warmup_steps=0"),
        *("--trials", "3", "--concurrency", "2", "--storage", str(storage), "--name", "watched"),
    )
    assert sent.returncode == 0, sent.stderr
    lines = dict(re.findall(r"^(logs|stop|resume): +(.+)$", sent.stdout, re.MULTILINE))
    logs = shlex.split(lines["logs"].replace(" --follow", ""))
    missing = wait_for_gauges(user, wanted)
    assert not missing, f"{missing}: not exported\n{user.run(*logs).stdout}"
    driver = find_driver(storage)
    assert driver is not None, user.run(*logs).stdout
    os.kill(driver, signal.SIGKILL)
    until = time.monotonic() + 60
    while not re.search(
        r"^watched-\S+  FAILED", user.spikeseg("jobs", "list", "--address", head).stdout, re.M
    ):
        assert time.monotonic() < until
        time.sleep(1)
    resumed = user.run(*shlex.split(lines["resume"]))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    results = json.loads((storage / "watched" / "results.json").read_text())
    assert [row["state"] for row in results] == ["COMPLETE"] * 3


def test_a_plain_ray_job_finds_spikeseg_on_the_path(user: User, head: str) -> None:
    sent = user.spikeseg("submit", "--address", head, "--", "doctor")
    assert sent.returncode in (0, 1), sent.stderr
    line = re.search(r"^the same by hand: (.+)$", sent.stdout, re.MULTILINE)
    assert line is not None
    plain = user.run("/bin/sh", "-c", line[1])
    assert "open files" in plain.stdout + plain.stderr
