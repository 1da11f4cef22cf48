"""Checks of a Ray head before anything is sent to it: that it answers, its token, its version.

Each refusal is one sentence with its remedy. What of Ray's interfaces is private gathers here.
"""

import json
import os
from typing import Any, NamedTuple

from .loopback import host_of, is_loopback
from .token import NO_TOKEN, find_token

_SECONDS = 10.0
_OPEN_HEAD = (
    "the head asks for no token, so whoever reaches it can run code on it; end it, run "
    "`ray get-auth-token --generate` and start it again with RAY_AUTH_MODE=token"
)
_WRONG_TOKEN = (
    "the head refuses this machine's token: copy the head's ~/.ray/auth_token here (mode 0600), "
    "and see that RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH hold no other one"
)
_OTHERWISE = {"RAY_ADDRESS": ", or unset RAY_ADDRESS"}


class HeadUnreachableError(RuntimeError):
    """No Ray head answers at an address."""


class Dashboard(NamedTuple):
    """A head's dashboard, to which jobs are sent.

    Attributes:
        address: Such as http://127.0.0.1:8265.
        source: Flag or variable that named it.
    """

    address: str
    source: str


def check_dashboard(dashboard: Dashboard) -> str:
    """Check the head behind a dashboard's address; jobs may be sent to it.

    The token is sent only once the head has said that it asks for one.

    Args:
        dashboard: Of the head.

    Returns:
        The token that the head took.

    Raises:
        ValueError: Where the head is open, or the token is missing or wrong, or it runs another
            version of Ray.
        HeadUnreachableError: Where none answers.
    """
    address, source = dashboard
    token = _require_token(f"{source} {address}", host_of(address))
    mode = ask_head(address, "/api/authentication_mode", {})
    if mode is None:
        # Versions of Ray from before there were tokens do not know that page.
        _check_version(address, ask_head(address, "/api/version", {}) or {})
    if mode is None or mode.get("authentication_mode") != "token":
        raise ValueError(f"{address}: {_OPEN_HEAD}")
    if token is None:
        raise ValueError(f"{address}: the head asks for a token; {NO_TOKEN}")
    answer = ask_head(address, "/api/version", {"Authorization": f"Bearer {token}"})
    _check_version(address, answer or {})
    return token


def check_head(address: str, source: str = "RAY_ADDRESS") -> None:
    """Check the head at a cluster's own address; a driver may connect to it, a node join it.

    Args:
        address: HOST:PORT, as `RAY_ADDRESS` names it.
        source: Flag or variable that named it.

    Raises:
        ValueError: Where the head is open, or the token is missing or wrong, or it runs another
            version of Ray.
        HeadUnreachableError: Where none answers.
    """
    shown = f"{source} {address}"
    token = _require_token(shown, host_of(address))
    if _read_versions(address, None, shown) is not None:
        raise ValueError(f"{shown}: {_OPEN_HEAD}")
    if token is None:
        raise ValueError(f"{shown}: the head asks for a token; {NO_TOKEN}")
    versions = _read_versions(address, token, shown)
    if versions is None:
        raise ValueError(f"{shown}: {_WRONG_TOKEN}")
    _check_version(shown, versions)


def _require_token(shown: str, host: str) -> str | None:
    """This machine's token; where there is none, no address of another machine is even tried."""
    token = find_token()
    if token is None and not is_loopback(host):
        raise ValueError(f"{shown}: not a loopback address, and {NO_TOKEN}")
    return token


def ask_head(address: str, page: str, headers: dict[str, str]) -> dict[str, Any] | None:
    """Ask for a page of a head's dashboard.

    Args:
        address: The dashboard's, such as http://127.0.0.1:8265.
        page: Path of the page, with its query.
        headers: Of the request, such as the token's.

    Returns:
        The page's object; None where the head has no such page.

    Raises:
        ValueError: Where the head refuses the token.
        HeadUnreachableError: Where no head answers.
    """
    import requests

    try:
        answer = requests.get(
            f"{address}{page}", headers=headers, timeout=_SECONDS, allow_redirects=False
        )
    except requests.RequestException as error:
        raise HeadUnreachableError(
            f"{address}: no Ray head answers there ({type(error).__name__}); see that it runs and "
            "that this is its dashboard's address"
        ) from error
    if answer.status_code in (401, 403):
        raise ValueError(f"{address}: {_WRONG_TOKEN}")
    if answer.status_code == 404:
        return None
    try:
        content = answer.json() if answer.status_code == 200 else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise HeadUnreachableError(
            f"{address}: what answers there (HTTP {answer.status_code}) is no Ray head; --address "
            "takes that of a head's dashboard, such as http://HOST:8265"
        )
    return content


def _read_versions(address: str, token: str | None, shown: str) -> dict[str, Any] | None:
    """What a head says of its versions; None where it refuses the token, or that there is none."""
    # No public call tells a head that asks for no token from one that took ours.
    import grpc
    from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    request = gcs_service_pb2.InternalKVGetRequest(  # pyright: ignore[reportAttributeAccessIssue]
        key=CLUSTER_METADATA_KEY, namespace=b"cluster"
    )
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with _open_channel(address) as channel:
        stub = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel)
        try:
            answer = stub.InternalKVGet(request, timeout=_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            code: Any = error.code()  # pyright: ignore[reportAttributeAccessIssue]
            if code == grpc.StatusCode.UNAUTHENTICATED:
                return None
            raise HeadUnreachableError(
                f"{shown}: no Ray head answers there ({code.name}); see that it runs and that this "
                f"is its own address (HOST:6379){_OTHERWISE.get(shown.partition(' ')[0], '')}"
            ) from error
    return json.loads(answer.value) if answer.value else {}


def _open_channel(address: str) -> Any:
    """A channel to a head, with the certificates that Ray is configured with."""
    import grpc
    from ray._common.tls_utils import load_certs_from_env

    # Straight there: a proxy would be given the token.
    options = [("grpc.enable_http_proxy", 0)]
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(address, options)
    chain, key, authority = load_certs_from_env()
    credentials = grpc.ssl_channel_credentials(authority, key, chain)
    return grpc.secure_channel(address, credentials, options)


def _check_version(shown: str, answer: dict[str, Any]) -> None:
    """Refuse a head with another version of Ray than this environment's."""
    import ray

    version = answer.get("ray_version") or "of an unknown version"
    if version != ray.__version__:
        raise ValueError(
            f"{shown}: the head runs Ray {version}, this environment {ray.__version__}, and Ray "
            f"needs the same on both: install it here, or {ray.__version__} on the cluster"
        )
