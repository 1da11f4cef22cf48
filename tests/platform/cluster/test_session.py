"""Ray is opened the way that its processes and its clients agree on."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_head import Head, cluster_head

from spikeseg.platform.cluster import cluster_loss, session

_LOSES_ITS_RAYLET = (
    "from spikeseg.platform.cluster.cluster_loss import interrupt_when_lost\n"
    "from spikeseg.platform.cluster.session import connected\n"
    "with connected(cpus=1):\n"
    "    import ray, time\n"
    "    from ray._private import worker\n"
    "    with interrupt_when_lost():\n"
    "        waiting = ray.remote(lambda: time.sleep(600)).remote()\n"
    "        worker._global_node.all_processes['raylet'][0].process.kill()\n"
    "        ray.get(waiting)\n"
)
_WORK = (
    "from spikeseg.platform.cluster.session import connected\n"
    "with connected(cpus=1):\n"
    "    import ray\n"
    "    print(ray.get(ray.remote(lambda: 'answered').remote()))\n"
)


@pytest.mark.ray
@pytest.mark.parametrize("before", ["", "import ray\n"], ids=["package first", "ray first"])
def test_a_local_cluster_answers_whoever_imported_ray_first(tmp_path: Path, before: str) -> None:
    free = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", before + _WORK],
        # Nobody has a token there yet, as on a machine where Ray never ran.
        env={**free, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.strip() == "answered", done.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_who_waits_for_a_local_cluster_hears_that_it_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOSES_ITS_RAYLET], capture_output=True, text=True, timeout=200
    )
    assert "ClusterLostError: Ray's raylet on this machine ended" in done.stderr
    assert done.returncode == 1


class Node:
    """Ray's node of a cluster of our own, as far as it is asked.

    Args:
        ended: Kinds of its processes that ended.
    """

    def __init__(self, *ended: str) -> None:
        self._ended = ended

    def dead_processes(self) -> list[tuple[str, None]]:
        """Kind and process of each that ended."""
        return [(kind, None) for kind in self._ended]


@pytest.mark.parametrize("kind", ["raylet", "gcs_server"])
def test_a_wait_ends_where_the_local_cluster_is_gone(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(cluster_loss, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr("ray._private.worker._global_node", Node("log_monitor", kind))
    before = signal.getsignal(signal.SIGUSR2)
    with (
        pytest.raises(cluster_loss.ClusterLostError, match=f"Ray's {kind} on this machine ended"),
        cluster_loss.interrupt_when_lost(),
    ):
        time.sleep(20)
    assert signal.getsignal(signal.SIGUSR2) is before


def test_an_interrupt_of_a_living_cluster_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_loss, "_WATCH_SECONDS", 0.01)
    monkeypatch.setattr("ray._private.worker._global_node", Node("log_monitor"))
    with pytest.raises(KeyboardInterrupt), cluster_loss.interrupt_when_lost():
        time.sleep(0.1)
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "address",
    [
        *("ray://127.0.0.1:10001", "http://127.0.0.1:8265"),
        *("head", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"),
    ],
)
def test_what_is_no_heads_own_address_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueError, match=f"RAY_ADDRESS {address}: must be the head's own address"):
        session.connected(cpus=1).__enter__()


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (Head(token=None), "asks for no token"),
        (Head(token="another"), "refuses this machine's token"),
        (Head(version="2.1.0"), "the head runs Ray 2.1.0"),
    ],
    ids=["open", "wrong token", "another version"],
)
def test_a_driver_checks_the_head_before_it_connects(
    monkeypatch: pytest.MonkeyPatch, head: Head, sentence: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    monkeypatch.setattr(session, "_connect", lambda address: pytest.fail("it connected"))
    with cluster_head(head):
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        with pytest.raises(ValueError, match=f"RAY_ADDRESS {head.address}: .*{sentence}"):
            session.connected(cpus=1).__enter__()


@pytest.mark.parametrize("before", [None, "1"])
def test_where_ray_listens_is_as_before_after_a_local_cluster(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    from ray._private import ray_constants, services

    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    if before is not None:
        monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", before)
    address = services.get_node_ip_address()
    with session._on_loopback():
        assert services.get_node_ip_address() == "127.0.0.1"
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert services.get_node_ip_address() == address
    assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == before
    assert ray_constants.ENABLE_RAY_CLUSTER


def test_a_local_cluster_without_a_token_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr(session, "_LOCAL", {})
    monkeypatch.setattr(session, "_LONGEST_SOCKET", 1000)  # nothing is started there
    session._start_local(1)
    assert "RAY_AUTH_MODE=disabled: the local cluster asks for no token" in caplog.text


def test_rays_sockets_lie_where_no_other_user_can_replace_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "new"))
    folder = session.make_ray_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert session.make_ray_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["link", "file", "another user's"])
def test_a_folder_for_sockets_that_is_not_ours_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("os.getuid", lambda: 4711)
    folder = tmp_path / "spikeseg-ray-4711"
    if kind == "link":
        folder.symlink_to(tmp_path)
    elif kind == "file":
        folder.touch()
    else:
        folder.mkdir()
    with pytest.raises(ValueError, match="spikeseg-ray-4711: must be a folder of this user"):
        session.make_ray_folder()


@pytest.mark.parametrize("length", [60, 100, 200])
def test_a_path_too_long_for_sockets_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Ray itself tells it by an assertion about a socket's name, after it began."""
    above = str(tmp_path / ("x" * length))[:length]
    monkeypatch.setenv("RAY_TMPDIR", above)
    with pytest.raises(ValueError, match=r"Ray's sockets below it would have paths of") as refused:
        session._start_local(1)
    assert f"RAY_TMPDIR {above}: " in str(refused.value)
    assert "bytes shorter, or unset it" in str(refused.value)
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_a_long_tmpdir_is_not_where_sockets_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 100)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert session.make_ray_folder() == Path(f"/tmp/spikeseg-ray-{os.getuid()}")
