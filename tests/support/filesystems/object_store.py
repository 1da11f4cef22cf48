"""An object store that a test starts: moto's server speaks S3 on loopback."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from pyarrow import fs

REGION = "us-east-1"


class Bucket(NamedTuple):
    """A bucket of a server on loopback.

    Attributes:
        endpoint: Address of the server.
    """

    endpoint: str

    def uri(self, path: str) -> str:
        """Address of a path in it, which says all that pyarrow must know."""
        host = self.endpoint.partition("://")[2]
        return f"s3://sets/{path}?scheme=http&endpoint_override={host}&region={REGION}"

    def variables(self) -> dict[str, str]:
        """Variables with which `s3://sets/PATH` is its address."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": REGION}


@contextlib.contextmanager
def open_bucket() -> Iterator[Bucket]:
    """Start a server with an empty bucket; skips the test where moto is not installed."""
    server = pytest.importorskip(
        "moto.server", reason="the S3 test server (moto[server]) is not installed"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        started.start()
        host, port = started.get_host_and_port()
        bucket = Bucket(f"http://{host}:{port}")
        filesystem, _ = fs.FileSystem.from_uri(f"{bucket.uri('')}&allow_bucket_creation=true")
        filesystem.create_dir("sets")
        try:
            yield bucket
        finally:
            started.stop()
