"""A proxy on loopback that breaks a server's connections on demand."""

import contextlib
import socket
import threading
import time
from typing import Literal

Mode = Literal["through", "refuse", "error", "slow", "cut"]
_ERROR = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"


class FaultyProxy:
    """Passes connections on to a port, or breaks them.

    Modes: `through` passes on; `refuse` closes at the first byte of a request; `error` answers
    503; `slow` holds every answer back for `delay` seconds; `cut` lets the server do its work and
    closes before its answer arrives, for every second request.

    Args:
        target: Port of the server.
        delay: Seconds in mode `slow`.
    """

    def __init__(self, target: int, *, delay: float) -> None:
        self.mode: Mode = "through"
        self.broken = 0
        self._target = target
        self._delay = delay
        self._answers = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.mode in ("refuse", "error"):
                    self.broken += 1
                    if self.mode == "error":
                        client.sendall(_ERROR)
                    break
                server.sendall(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                self._answers += 1
                if self.mode == "slow":
                    self.broken += 1
                    time.sleep(self._delay)
                if self.mode == "cut" and self._answers % 2:
                    self.broken += 1
                    break
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
