"""What nodes of a cluster must have in common, and what the refusal names."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spikeseg.platform.cluster import node_checks, node_probe
from spikeseg.platform.cluster.node_checks import check_nodes
from spikeseg.platform.cluster.node_probe import describe_node, describe_way, digest_package

Patch = pytest.MonkeyPatch
TRACKER = "http://user:password@10.0.0.9:5000"


@pytest.fixture(scope="module")
def ours() -> str:
    return digest_package(Path(node_checks.__file__).parents[2])


def reporting(patch: Patch, ours: str, **second: Any) -> None:
    """Two nodes, of which the second reports something else."""
    good = {"code": ours, "storage": "", "tracker": "", "ahead_s": 0.2}
    reports = {"10.0.0.1 (aa)": good, "10.0.0.2 (bb)": good | second}
    patch.setattr(node_checks, "_ask_nodes", lambda *given: reports)


def check(tracking: str | None = TRACKER) -> list[str]:
    lines: list[str] = []
    check_nodes(["aa", "bb"], Path("/data/runs"), tracking, lines.append)
    return lines


def test_nodes_that_are_alike_are_good(monkeypatch: Patch, ours: str) -> None:
    reporting(monkeypatch, ours)
    assert check() == []


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"code": None}, r"spikeseg: node 10\.0\.0\.2 \(bb\) has none, and would run that"),
        ({"code": "0" * 64}, r"spikeseg: node 10\.0\.0\.2 \(bb\) has another one \(code 0{12}, "),
        (
            {"storage": "Permission denied"},
            r"storage /data/runs: node 10\.0\.0\.2 \(bb\) does not see it \(Permission denied\)",
        ),
        (
            {"tracker": "timed out"},
            r"tracking http://10\.0\.0\.9:5000: node 10\.0\.0\.2 \(bb\) does not reach it \(timed",
        ),
    ],
    ids=["none", "another", "storage", "tracker"],
)
def test_a_node_that_differs_is_refused_by_name(
    monkeypatch: Patch, ours: str, second: dict[str, Any], sentence: str
) -> None:
    reporting(monkeypatch, ours, **second)
    with pytest.raises(ValueError, match=sentence) as refused:
        check()
    assert "password" not in str(refused.value)


def test_a_tracker_that_only_the_driver_talks_to_need_not_be_reached(
    monkeypatch: Patch, ours: str
) -> None:
    reporting(monkeypatch, ours, tracker="timed out")
    assert check(None) == []


@pytest.mark.parametrize("here", ["timed out", ""])
def test_a_tracker_that_no_node_reaches_is_down_unless_the_driver_reaches_it(
    monkeypatch: Patch, ours: str, here: str
) -> None:
    reporting(monkeypatch, ours, tracker="timed out")
    both = {name: {"tracker": "timed out"} for name in ("10.0.0.1 (aa)", "10.0.0.2 (bb)")}
    monkeypatch.setattr(node_probe, "describe_way", lambda address: here)
    if here:
        node_checks._require_same_way(both, TRACKER)
    else:
        with pytest.raises(ValueError, match=r"node 10\.0\.0\.1 \(aa\) does not reach it"):
            node_checks._require_same_way(both, TRACKER)


@pytest.mark.parametrize(("ahead", "words"), [(-7200.0, "7200 s behind"), (60.0, "60 s ahead of")])
def test_clocks_that_are_apart_are_told(
    monkeypatch: Patch, ours: str, ahead: float, words: str
) -> None:
    reporting(monkeypatch, ours, ahead_s=ahead)
    (line,) = check()
    assert line.startswith(f"node 10.0.0.2 (bb): its clock is {words} this machine's")


def test_a_node_describes_its_code_and_its_storage(ours: str, tmp_path: Path) -> None:
    (tmp_path / ".probe-x").write_text("x")
    good = describe_node(str(tmp_path), "", "x")
    assert good["code"] == ours
    assert good["storage"] == good["tracker"] == ""
    (tmp_path / ".probe-x").write_text("of another machine")
    assert describe_node(str(tmp_path), "", "x")["storage"] == "another file lies there"
    assert describe_node(str(tmp_path / "no"), "", "x")["storage"] == "No such file or directory"
    assert [path.name for path in tmp_path.iterdir()] == [".probe-x"], "nothing is left behind"


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that answers with a refusal, as one that asks for a password does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its base names it so)
            """Nothing: the test's output is its own."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_that_asks_for_a_password_is_reached(refusing: str) -> None:
    assert describe_way(f"http://{refusing}") == ""
    assert describe_way(f"http://user:pass@word@{refusing}/path") == ""
    assert "refused" in describe_way("http://user:secret@127.0.0.1:9")
    assert describe_way("http://127.0.0.1:no") != ""
