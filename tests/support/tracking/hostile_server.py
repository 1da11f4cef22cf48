"""A server on loopback that answers every request in one hostile way."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

Answer = Callable[[socket.socket], None]


def whole(body: bytes, status: str = "200 OK", *headers: str) -> Answer:
    """Answer with a body of known length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]

    def answer(client: socket.socket) -> None:
        client.sendall("".join(f"{line}\r\n" for line in [*head, ""]).encode() + body)

    return answer


def endless(client: socket.socket) -> None:
    """A body without end."""
    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        client.sendall(b"x" * 65536)


def drip(before: bytes) -> Answer:
    """One byte every few milliseconds behind a first part, without end."""

    def answer(client: socket.socket) -> None:
        client.sendall(before)
        while True:
            client.sendall(b"x")
            time.sleep(0.02)

    return answer


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve one answer to everybody; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(10)
            client.recv(65536)
            answer(client)
            # Closed with something unread, the connection would break before the answer is read.
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # A listener that is only closed goes on to wait in its thread.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
