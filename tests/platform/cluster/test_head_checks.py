"""A head that is open, refuses the token or runs another Ray is refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import ray
from fake_head import Head, cluster_head, dashboard

from spikeseg.platform.cluster.head_checks import (
    Dashboard,
    HeadUnreachableError,
    check_dashboard,
    check_head,
)

NOBODY = "127.0.0.1:9"  # The port for discarding, on which nothing listens.


@pytest.fixture(autouse=True)
def with_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose token is `right`, with a home without any file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)


def check_http(head: Head) -> str:
    with dashboard(head):
        return check_dashboard(Dashboard(f"http://{head.address}", "--address"))


def check_grpc(head: Head) -> None:
    with cluster_head(head):
        check_head(head.address)


def test_a_head_that_takes_the_token_is_used() -> None:
    assert check_http(Head()) == "right"
    check_grpc(Head())


@pytest.mark.parametrize("check", [check_http, check_grpc])
def test_an_open_head_is_refused_and_never_sees_the_token(check: Any) -> None:
    head = Head(token=None, mode="disabled")
    with pytest.raises(ValueError, match=r"asks for no token.*`ray get-auth-token --generate`"):
        check(head)
    assert all(authorization is None for _, _, authorization in head.requests)


@pytest.mark.parametrize("check", [check_http, check_grpc])
def test_a_wrong_token_is_told_with_its_remedy(check: Any) -> None:
    with pytest.raises(ValueError, match=r"refuses this machine's token: copy the head's ~/\.ray"):
        check(Head(token="another"))


@pytest.mark.parametrize("check", [check_http, check_grpc])
def test_a_missing_token_is_told_with_its_remedy(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(ValueError, match=r"asks for a token; there is no token .* copy the head's"):
        check(Head())


@pytest.mark.parametrize("check", [check_http, check_grpc])
def test_another_version_of_ray_is_named(check: Any) -> None:
    with pytest.raises(ValueError, match=rf"runs Ray 2\.1\.0, this environment {ray.__version__}"):
        check(Head(version="2.1.0"))


def test_a_head_from_before_there_were_tokens_is_told_by_its_version() -> None:
    with pytest.raises(ValueError, match=r"the head runs Ray 2\.9\.3"):
        check_http(Head(token=None, mode=None, version="2.9.3"))


def test_where_nobody_answers_that_is_said() -> None:
    with pytest.raises(HeadUnreachableError, match=f"http://{NOBODY}: no Ray head answers there"):
        check_dashboard(Dashboard(f"http://{NOBODY}", "--address"))
    with pytest.raises(HeadUnreachableError, match=f"RAY_ADDRESS {NOBODY}: no Ray head answers"):
        check_head(NOBODY)


@pytest.mark.parametrize("page", ["<html>welcome</html>", "[1, 2]", '"token"'])
def test_a_server_that_is_no_head_is_told_so(page: str) -> None:
    with pytest.raises(HeadUnreachableError, match="is no Ray head"):
        check_http(Head(page=page))


def test_a_dashboard_where_the_heads_own_address_belongs_is_told_so() -> None:
    with dashboard(Head()) as head, pytest.raises(HeadUnreachableError, match="HOST:6379"):
        check_head(head.address)


@pytest.mark.parametrize("address", ["192.0.2.7:6379", "head.example.org:6379"])
def test_without_a_token_no_other_machine_is_even_tried(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(ValueError, match=f"RAY_ADDRESS {address}: not a loopback address, and th"):
        check_head(address)
    with pytest.raises(ValueError, match=r"RAY_ADDRESS http.*: not a loopback address, and there"):
        check_dashboard(Dashboard(f"http://{address}", "RAY_ADDRESS"))
