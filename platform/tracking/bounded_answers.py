"""Bounds on what a tracking server may answer: bytes, and seconds until an answer is whole.

The time that `requests` waits is between two bytes. A server that sends one byte every few seconds,
or bytes without end, would hold a thread or take the memory of the machine.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.exceptions import ConnectionError as BrokenConnectionError
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError as Urllib3Error

MOST_BYTES = 64_000_000
"""Bytes of one answer that is no file; a page of 25,000 metric values has three million."""
_SECONDS = 30.0
_PIECE = 1 << 16


def seconds_for_answer(timeout: float | None) -> float:
    """Seconds until an answer must be whole, by the seconds between two of its bytes."""
    return max(_SECONDS, 3 * (timeout or 0.0))


@contextlib.contextmanager
def _cut_off(connection: Any) -> Iterator[None]:
    """Shut a connection that has not brought the head of an answer in time."""
    connected = connection.sock
    seconds, late = seconds_for_answer(connected.gettimeout()), threading.Event()

    def shut() -> None:
        late.set()
        with contextlib.suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            # A head that is cut reads as an empty answer otherwise.
            raise TimeoutError(f"its answer has not begun after {seconds:.0f} s")


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        with _cut_off(self):
            return super().getresponse()


class _SecureConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        with _cut_off(self):
            return super().getresponse()


class TrackerPool(HTTPConnectionPool):
    """Connections whose answers begin in time."""

    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class SecureTrackerPool(HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _SecureConnection  # pyright: ignore[reportAssignmentType]


def install_bounds() -> None:
    """Have MLflow's client read answers within bounds, from now on in this process."""
    from mlflow.utils import request_utils

    stock = request_utils.TCPKeepAliveHTTPAdapter
    if getattr(stock, "is_bounded", False):
        return

    class BoundedAdapter(stock):  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
        is_bounded = True

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options)
            self.poolmanager.pool_classes_by_scheme = {
                "http": TrackerPool,
                "https": SecureTrackerPool,
            }

        def send(self, request: Any, stream: bool = False, *rest: Any, **options: Any) -> Any:
            response = super().send(request, stream, *rest, **options)
            if not stream:
                timeout = options.get("timeout")
                seconds = timeout[-1] if isinstance(timeout, tuple) else timeout
                read_whole(response, seconds_for_answer(seconds))
            return response

    request_utils.TCPKeepAliveHTTPAdapter = BoundedAdapter
    # Sessions that were opened before have adapters without bounds.
    request_utils._cached_get_request_session.cache_clear()


def read_whole(response: requests.Response, seconds: float) -> None:
    """Read an answer's body as it comes, so that `content` has it.

    Args:
        response: The answer, of which the head was read.
        seconds: Until the body must be whole.

    Raises:
        requests.ConnectionError: Where it is longer than `MOST_BYTES`, or not whole in time.
    """
    body, deadline = bytearray(), time.monotonic() + seconds
    try:
        # As `iter_content` does, but whatever has come: that one waits for a piece to be full.
        while piece := response.raw.read1(_PIECE, decode_content=True):
            body += piece
            if len(body) > MOST_BYTES:
                raise BrokenConnectionError(f"its answer is longer than {MOST_BYTES} bytes")
            if time.monotonic() > deadline:
                raise BrokenConnectionError(
                    f"its answer of {len(body)} bytes so far is not whole after {seconds:.0f} s"
                )
    except BaseException as error:
        response.close()
        if isinstance(error, Urllib3Error):
            raise BrokenConnectionError(error) from error
        raise
    response._content = bytes(body)
    response._content_consumed = True  # pyright: ignore[reportAttributeAccessIssue]
