"""What the doctor says of a head of several nodes: room, and a tracker that all may write to."""

from pathlib import Path

import pytest
from fake_head import Head, dashboard
from mistakes import GOOD, look

from spikeseg.platform.doctor.subject import read_subject


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "fields", "state"),
    [
        ("shapes_tiny", ("data.path=/data",), "fail"),
        ("shapes_tiny", ("data.path=/data", "trainer.workers=0"), "ok"),
        ("demo", ("data.path=/data",), "ok"),
        (None, (), "warn"),
    ],
    ids=["training", "training in one process", "sweep", "nothing named"],
)
def test_a_database_in_a_file_is_one_of_a_training_of_several_nodes_alone(
    tmp_path: Path, name: str | None, fields: tuple[str, ...], state: str
) -> None:
    with dashboard(Head(cpus=(4.0, 4.0))) as head:
        address = f"http://{head.address}"
        subject = read_subject(name, fields, storage=tmp_path, address=address, machine=GOOD)
        finding = look(subject, "shared tracker")
    assert finding.state == state
    if state != "ok":
        assert "a file, and the cluster has 2 nodes" in finding.text


@pytest.mark.parametrize(
    ("types", "state"),
    [({"ff0": "node_ff0"}, "fail"), ({"ff0": "ray.head.default"}, "warn"), (None, "warn")],
    ids=["no autoscaler", "the older one", "the newer one"],
)
def test_room_that_may_come_is_no_failure(
    tmp_path: Path, types: dict[str, str] | None, state: str
) -> None:
    fields = ("data.path=/data", "trainer.workers=9", "trainer.micro_batches=9")
    with dashboard(Head(cpus=(4.0, 4.0), types=types)) as head:
        address = f"http://{head.address}"
        subject = read_subject(
            "shapes_tiny", fields, storage=tmp_path, address=address, machine=GOOD
        )
        finding = look(subject, "head resources")
    assert finding.state == state
    assert "9 workers need 9 CPU" in finding.text
