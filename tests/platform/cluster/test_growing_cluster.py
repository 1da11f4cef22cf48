"""A cluster with Ray's autoscaler, whose machines are processes here: room is what it grows to."""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mistakes import SMALL, pack_good
from nodes import Machine, two_machines

pytestmark = [pytest.mark.ray, pytest.mark.slow]

HEAD = f"{'f' * 51}00000"
STEPS = ("trainer.max_steps=4", "trainer.evaluate_every=4", "trainer.test=false")
NEWER = {
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
}
# Ray's own configuration of these machines is not in its wheel.
CONFIGURATION: Mapping[str, Any] = {
    **{"cluster_name": "growing", "max_workers": 2, "upscaling_speed": 100.0},
    **{"idle_timeout_minutes": 5, "head_node_type": "ray.head.default", "auth": {}},
    **{"file_mounts": {}, "file_mounts_sync_continuously": False, "docker": {}},
    **dict.fromkeys(
        (
            *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands"),
            *("setup_commands", "head_setup_commands", "worker_setup_commands"),
            *("head_start_ray_commands", "worker_start_ray_commands"),
        ),
        (),
    ),
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "head_node_id": HEAD,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "small": {
            "resources": {"CPU": 1, "object_store_memory": 80_000_000},
            **{"node_config": {}, "min_workers": 0, "max_workers": 2},
        },
    },
}
DASHBOARD = 8265


class Growing(NamedTuple):
    """A head of one CPU that may get two machines with one each.

    Attributes:
        machine: Where all of it runs.
        folder: For data and runs.
        older: Whether Ray's older autoscaler starts them.
    """

    machine: Machine
    folder: Path
    older: bool

    def train(self, name: str, workers: int, **variables: str) -> Any:
        return self.machine.spikeseg(
            *("train", "shapes_tiny", f"data.path={self.folder / 'shapes'}", *SMALL, *STEPS),
            *(f"trainer.workers={workers}", f"trainer.micro_batches={workers}"),
            *("--name", name, "--storage", str(self.folder / "runs")),
            RAY_ADDRESS=f"{self.machine.address}:6379",
            # Nobody listens there: the record waits in the journal, and the work does not.
            MLFLOW_TRACKING_URI=f"http://{self.machine.address}:9",
            **variables,
        )


@pytest.fixture(scope="module", params=["newer", "older"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Growing]:
    folder = tmp_path_factory.mktemp("growing")
    pack_good(folder / "shapes")
    with two_machines() as (machine, _):
        made = Growing(machine, folder, request.param == "older")
        configuration = machine.home / "grow.yaml"
        configuration.write_text(json.dumps(CONFIGURATION))
        token = "from spikeseg.platform.cluster.token import ensure_token; ensure_token()"
        assert machine.run(sys.executable, "-c", token).code == 0
        head = machine.start(
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--node-ip-address={machine.address}", "--port=6379", "--num-cpus=1"),
            *(f"--dashboard-host={machine.address}", f"--dashboard-port={DASHBOARD}"),
            *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
            f"--autoscaling-config={configuration}",
            f"--temp-dir={machine.home.parent / 'ray'}",
            RAY_AUTH_MODE="token",
            RAY_FAKE_CLUSTER="1",
            AUTOSCALER_UPDATE_INTERVAL_S="1",
            **({} if made.older else NEWER),
        )
        head.wait_for("Ray runtime started")
        # The autoscaler's first report comes some seconds later.
        time.sleep(5)
        yield made


def test_room_that_it_may_grow_to_is_waited_for_and_used(cluster: Growing) -> None:
    done = cluster.train("grown", 2)
    assert done.code == 0, done.output
    assert "no room yet, waiting up to 900 s for the cluster to grow" in done.output
    assert "the work needs 2 CPUs at once, the cluster has 1" in done.output
    assert (cluster.folder / "runs" / "grown" / "result.json").is_file()


def test_more_than_it_may_grow_to_is_refused_after_a_limit(cluster: Growing) -> None:
    refused = cluster.train("huge", 5, SPIKESEG_ROOM_TIMEOUT_S="8" if cluster.older else "100")
    assert refused.code == 2, refused.output
    assert re.search(r"the work needs 5 CPUs at once, the cluster has [23]:", refused.output)
    if cluster.older:
        assert "the cluster has not grown within 8 s (SPIKESEG_ROOM_TIMEOUT_S)" in refused.output
    else:
        assert "the cluster cannot grow so far, says its autoscaler" in refused.output
    assert not (cluster.folder / "runs" / "huge").exists()


def test_a_submitted_request_is_not_refused_for_room_that_may_come(cluster: Growing) -> None:
    sent = cluster.machine.spikeseg(
        *("submit", "--address", f"http://{cluster.machine.address}:{DASHBOARD}", "--no-wait"),
        *("--", "train", "shapes_tiny", f"data.path={cluster.folder / 'shapes'}", *SMALL, *STEPS),
        *("trainer.workers=5", "trainer.micro_batches=5"),
        *("--storage", str(cluster.folder / "sent")),
    )
    assert sent.code == 0, sent.output
    assert re.search(r"no room yet on \d nodes; the job waits for the cluster to g", sent.output)
