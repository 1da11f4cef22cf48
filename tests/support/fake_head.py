"""A server that plays a Ray head: its dashboard by HTTP, its own address by gRPC."""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ray


@dataclass
class Head:
    """How the head answers, and what it was asked.

    Attributes:
        token: Token that it asks for; None for an open head.
        version: Version of Ray that it says it runs.
        mode: Answer of the page that names its way of authentication; a head of an old Ray has
            no such page (None).
        page: Answer to every page, of a server that is no head; None for a head.
        cpus: CPUs of each of its nodes.
        types: Type of each node, as the older autoscaler reports; None where the newer one runs.
        address: Where it listens, HOST:PORT.
        bodies: What was sent with each.
        requests: Method, path, authorization of each request by HTTP.
    """

    token: str | None = "right"
    version: str = ray.__version__
    mode: str | None = "token"
    page: str | None = None
    cpus: tuple[float, ...] = (4.0,)
    types: Mapping[str, str] | None = field(default_factory=lambda: {"ff0": "node_ff0"})
    address: str = ""
    bodies: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def answer(self, path: str, authorization: str | None) -> tuple[int, str]:
        if self.page is not None:
            return 200, self.page
        if path == "/api/authentication_mode":
            return (
                (404, "")
                if self.mode is None
                else (200, f'{{"authentication_mode": "{self.mode}"}}')
            )
        if self.token is not None and authorization != f"Bearer {self.token}":
            return (401, "Unauthorized") if authorization is None else (403, "Forbidden")
        if path == "/api/version":
            return 200, json.dumps({"version": "4", "ray_version": self.version})
        if path.startswith("/api/v0/nodes"):
            nodes = [
                {
                    "node_id": f"{number:056x}",
                    "node_ip": f"10.0.0.{number}",
                    "state": "ALIVE",
                    "resources_total": {"CPU": cpus, "memory": 1e9},
                }
                for number, cpus in enumerate(self.cpus)
            ]
            return 200, json.dumps({"data": {"result": {"result": nodes}}})
        if path == "/api/cluster_status":
            report = {"autoscalerReport": {"nodeTypeMapping": self.types}} if self.types else None
            return 200, json.dumps({"data": {"clusterStatus": report}})
        if path.startswith("/api/packages/"):
            return 200, "{}"
        return 200, json.dumps({"job_id": None, "submission_id": "raysubmit_1"})


@contextlib.contextmanager
def dashboard(head: Head) -> Iterator[Head]:
    """Serve the head's dashboard on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            head.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            authorization = self.headers.get("Authorization")
            head.requests.append((self.command, self.path, authorization))
            status, text = head.answer(self.path, authorization)
            if self.command == "GET" and self.path.startswith("/api/packages/") and status == 200:
                status, text = 404, "{}"  # It has none yet.
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = _reply  # noqa: N815 (its base names them so)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its base names it so)
            """Nothing: the test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    head.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield head
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def cluster_head(head: Head) -> Iterator[Head]:
    """Serve what a driver asks of a head before it connects."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    class Store(gcs_service_pb2_grpc.InternalKVGcsServiceServicer):
        def InternalKVGet(self, request: Any, context: Any) -> Any:  # noqa: N802 (Ray names it so)
            sent = dict(context.invocation_metadata()).get("authorization")
            if head.token is not None and sent != f"Bearer {head.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            value = json.dumps({"ray_version": head.version}).encode()
            messages: Any = gcs_service_pb2
            return messages.InternalKVGetReply(value=value)

    server = grpc.server(ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_InternalKVGcsServiceServicer_to_server(Store(), server)
    head.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield head
    finally:
        server.stop(None).wait()
