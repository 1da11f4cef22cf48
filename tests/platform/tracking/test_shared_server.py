"""A server that others run: who you are, what you may, whom you trust, each told in a sentence."""

import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hostile_server import serving, whole
from journals import open_journal

from spikeseg.platform.tracking.run_reader import read_run
from spikeseg.platform.tracking.upload.uploader import sync

BODY = json.dumps({"error_code": "PERMISSION_DENIED", "message": "Permission denied"}).encode()
TAKEN = json.dumps({"error_code": "RESOURCE_ALREADY_EXISTS", "message": "x exists"}).encode()
ANSWERS = {
    "no user": (whole(b"You are not authenticated.", "401 Unauthorized"), "asks who you are: set "),
    "no right, plain": (whole(b"Permission denied", "403 Forbidden"), "does not let this user"),
    "no right, JSON": (whole(BODY, "403 Forbidden"), "does not let this user do that"),
    "name is taken": (whole(TAKEN, "400 Bad Request"), "has something of this name already"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_shared_server_refuses_is_one_sentence_with_what_to_do(
    tmp_path: Path, name: str
) -> None:
    answer, said = ANSWERS[name]
    journal = open_journal(tmp_path / "run" / "journal")
    journal.close()
    with serving(answer) as address:
        with pytest.raises(RuntimeError, match=f"MLflow at {address} {said}") as sent:
            sync(journal.folder, address, "team")
        with pytest.raises(RuntimeError, match=said):
            read_run(address, "0" * 32)
    assert "\n" not in str(sent.value)


def test_a_certificate_of_an_own_authority_is_told_and_accepted_once_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path)
    with tls_server(certificate, tmp_path / "key.pem") as address:
        with pytest.raises(RuntimeError, match="has a certificate of an authority") as unknown:
            read_run(address, "0" * 32)
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH=FILE.pem" in str(unknown.value)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        with pytest.raises(ValueError, match="not known at"):
            read_run(address, "0" * 32)


def write_certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own authority")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


class _KnowsNoRun(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}).encode()
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@contextmanager
def tls_server(certificate: Path, key: Path) -> Iterator[str]:
    """A server over TLS on loopback that knows no run; yields its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _KnowsNoRun)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
