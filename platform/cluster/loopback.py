"""Loopback addresses, and the token that all others need."""

import ipaddress
import os
from urllib.parse import urlsplit


def check_address(address: str) -> None:
    """Refuse a cluster's address that is open to others, unless a token guards it.

    Args:
        address: Such as http://127.0.0.1:8265.

    Raises:
        ValueError: Where it is neither loopback nor guarded.
    """
    if not is_loopback(host_of(address)) and not has_token():
        raise ValueError(
            f"--address {address}: not a loopback address, and no token is set (RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH); whoever reaches an open head can run code on it"
        )


def host_of(address: str) -> str:
    """Host of an address such as http://127.0.0.1:8265; empty where it names none."""
    return urlsplit(address if "://" in address else f"//{address}").hostname or ""


def has_token() -> bool:
    """Whether the user gave Ray a token."""
    return bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
