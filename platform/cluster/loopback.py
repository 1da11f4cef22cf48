"""Loopback addresses: hosts, and the network interface that has one."""

import ipaddress
from urllib.parse import urlsplit


def host_of(address: str) -> str:
    """Host of an address such as http://127.0.0.1:8265; empty where it names none."""
    return urlsplit(address if "://" in address else f"//{address}").hostname or ""


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def interface_of(host: str) -> str | None:
    """Name of the network interface with an IP address, such as `lo`; None where none has it."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] == host for address in addresses):
            return name
    return None
