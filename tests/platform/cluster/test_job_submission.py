"""A job goes to the head that was checked, whatever the environment names."""

from pathlib import Path

import pytest
from command import spikeseg
from fake_head import Head, dashboard

from spikeseg.platform.cluster import job_submission
from spikeseg.platform.cluster.job_submission import choose_dashboard

Capture = pytest.CaptureFixture[str]
VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with the right token and no address in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    for name in ("RAY_AUTH_TOKEN_PATH", *VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def small_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is a folder with one file."""

    def copy(target: Path) -> Path:
        (target / "spikeseg").mkdir()
        (target / "spikeseg" / "__init__.py").touch()
        return target / "spikeseg"

    monkeypatch.setattr(job_submission, "copy_package", copy)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_no_variable_overrides_the_flag(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    with dashboard(Head()) as named, dashboard(Head(token=None, mode="disabled")) as other:
        monkeypatch.setenv(variable, f"http://{other.address}")
        address = f"{scheme}{named.address}"
        ran = spikeseg(capsys, "submit", "--address", address, "--no-wait", "--", "doctor")
        assert ran.code == 0, ran.err
        assert f"head http://{named.address} (--address)" in ran.out
        assert not other.requests
        assert ("POST", "/api/jobs/", "Bearer right") in named.requests
        # The lines for a shell go to the same head, whatever that shell has set.
        lines = [line for line in ran.out.splitlines() if " job submit " in line]
        assert len(lines) == 1
        assert f" RAY_API_SERVER_ADDRESS=http://{named.address} " in lines[0]
        lines = [line for line in ran.out.splitlines() if line.startswith(("logs:", "stop:"))]
        assert len(lines) == 2
        assert all(line.endswith(f"--address http://{named.address}") for line in lines)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_that_is_used_is_checked_as_the_flag_is(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with dashboard(Head()) as head:
        monkeypatch.setenv(variable, f"http://{head.address}")
        ran = spikeseg(capsys, "submit", "--no-wait", "--", "doctor")
        assert ran.code == 0, ran.err
        assert f"head http://{head.address} ({variable})" in ran.out
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv(variable, "http://192.0.2.7:8265")
    ran = spikeseg(capsys, "submit", "--", "doctor")
    assert ran.code == 2
    assert f"{variable} http://192.0.2.7:8265: not a loopback address, and there is no" in ran.err


def test_the_order_is_flag_dashboard_cluster_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_dashboard(None) == ("http://127.0.0.1:8265", "the default")
    monkeypatch.setenv("RAY_ADDRESS", "http://c:1/")
    assert choose_dashboard(None) == ("http://c:1", "RAY_ADDRESS")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://b:2")
    assert choose_dashboard(None) == ("https://b:2", "RAY_API_SERVER_ADDRESS")
    assert choose_dashboard("a:3") == ("http://a:3", "--address")


@pytest.mark.parametrize("address", ["ray://h:10001", "auto://", "ftp://h:1", "http://"])
def test_what_is_no_dashboards_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not the address of a head's dashboard"):
        choose_dashboard(address)


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "auto", "local"])
def test_a_clusters_own_address_is_not_taken_for_a_dashboards(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueError, match=f"RAY_ADDRESS {address}: not the address .* --address"):
        choose_dashboard(None)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="neither user nor query") as refused:
        choose_dashboard("http://bob:hunter2@h:8265")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("head", "code", "sentence"),
    [
        (Head(token=None, mode="disabled"), 2, "asks for no token"),
        (Head(token="other"), 2, "refuses this machine's token"),
        (Head(version="2.9.3"), 2, "the head runs Ray 2.9.3"),
        (Head(page="<html>"), 1, "is no Ray head"),
    ],
    ids=["open head", "wrong token", "another version", "no head"],
)
def test_a_refusal_is_one_sentence(capsys: Capture, head: Head, code: int, sentence: str) -> None:
    with dashboard(head):
        ran = spikeseg(capsys, "submit", "--address", f"http://{head.address}", "--", "doctor")
    assert ran.code == code
    assert sentence in ran.err
    assert ran.err.startswith("spikeseg: ")
    assert len(ran.err.splitlines()) == 1
    assert all(method == "GET" for method, _, _ in head.requests), "nothing was sent"


def test_a_missing_token_and_nobody_there_are_one_sentence(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = spikeseg(capsys, "submit", "--address", "http://127.0.0.1:9", "--", "doctor")
    assert ran.code == 1
    assert ran.err.startswith("spikeseg: http://127.0.0.1:9: no Ray head answers there")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with dashboard(Head()) as head:
        ran = spikeseg(capsys, "submit", "--address", f"http://{head.address}", "--", "doctor")
    assert ran.code == 2
    assert "the head asks for a token; there is no token on this machine" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_head_that_goes_away_is_one_sentence(capsys: Capture) -> None:
    # It takes the job, and has no logs of it.
    with dashboard(Head()) as head:
        ran = spikeseg(capsys, "submit", "--address", f"http://{head.address}", "--", "doctor")
    assert ran.code == 1
    assert f"http://{head.address}: the head stopped answering" in ran.err.splitlines()[-1]
