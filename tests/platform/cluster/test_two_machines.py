"""Two machines with addresses of their own: work on both, and what is refused at the start."""

import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mistakes import SMALL, pack_good
from mlflow import MlflowClient
from nodes import SPIKESEG, Machine, Started, two_machines, wait_until_answers

from spikeseg.platform.tracking.mlflow_server import server_command
from spikeseg.platform.tracking.tracking_uri import tracking_uri

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = ("trainer.max_steps=6", "trainer.evaluate_every=6", "trainer.test=false")
PORT, DASHBOARD = 6379, 8265
# What the first machine sees in a folder that is empty on the second.
MOUNT = 'mount --bind "$0" "$1" && shift && exec "$@"'


class Cluster(NamedTuple):
    """A head on one machine, a node of the other, a tracker on the first.

    Attributes:
        first: Has the head.
        second: Has a node that joined.
        data: Packed data that both see.
        storage: Folder of all runs that both see.
        apart: Folder that is another one on each machine.
    """

    first: Machine
    second: Machine
    data: Path
    storage: Path
    apart: Path

    @property
    def head(self) -> str:
        return f"{self.first.address}:{PORT}"

    @property
    def tracker(self) -> str:
        return f"http://{self.first.address}:5000"

    def leave(self) -> None:
        """Have the second machine's node leave as its user would; the head hears of it at once."""
        stopped = self.second.spikeseg("cluster", "stop")
        assert stopped.code in (0, 1), stopped.output
        assert not self.second.pids()

    def join(self) -> None:
        """Start the second machine's node anew, as it is told to by then."""
        self.leave()
        joined = self.second.spikeseg("cluster", "start", "--join", self.head, "--cpus", "1")
        assert joined.code == 0, joined.output

    def train(self, name: str, *fields: str, storage: Path | None = None) -> tuple[str, ...]:
        return (
            *("train", "shapes_tiny", f"data.path={self.data}", *SMALL, *STEPS),
            *("trainer.workers=2", *fields, "--name", name),
            *("--storage", str(storage or self.storage)),
        )

    @property
    def variables(self) -> dict[str, str]:
        return {"RAY_ADDRESS": self.head, "MLFLOW_TRACKING_URI": self.tracker}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("machines")
    data = pack_good(folder / "shapes")
    storage, apart, real = folder / "runs", folder / "apart", folder / "real"
    for made in (storage, apart, real):
        made.mkdir()
    # Its tables are made once, and not while a training waits.
    MlflowClient(tracking_uri(storage)).search_experiments()
    with two_machines() as (first, second):
        first.before = ("unshare", "-m", "sh", "-c", MOUNT, str(real), str(apart))
        # Whoever loses power says no word: the head is to notice within seconds.
        first.variables |= {
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "4",
        }
        made = Cluster(first, second, data, storage, apart)
        first.start(*server_command(storage, host=first.address, port=5000))
        started = first.spikeseg(
            *("cluster", "start", "--host", first.address, "--cpus", "1"),
            *("--port", str(PORT), "--dashboard-port", str(DASHBOARD)),
        )
        assert started.code == 0, started.output
        assert "listens on every interface" in started.output
        refused = second.spikeseg("cluster", "start", "--join", made.head)
        assert refused.code == 2
        assert "nodes need the head's token" in refused.output
        copy_token(first, second)
        made.join()
        wait_until_answers(second, made.tracker)
        yield made


def copy_token(source: Machine, target: Machine, token: str | None = None) -> None:
    place = target.home / ".ray" / "auth_token"
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.touch(0o600)
    place.write_text(token or (source.home / ".ray" / "auth_token").read_text())


def test_a_training_has_a_worker_on_each_node(cluster: Cluster) -> None:
    done = cluster.first.spikeseg(*cluster.train("both"), **cluster.variables)
    assert done.code == 0, done.output
    assert "clock" not in done.output, "one machine's clock is one"
    # Each node has one CPU, and each worker takes one.
    made_of = json.loads(
        (cluster.storage / "both" / "journal" / "files" / "provenance.json").read_text()
    )
    assert made_of["world_size"] == 2
    client = MlflowClient(tracking_uri(cluster.storage))
    experiments = [item.experiment_id for item in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.run = 'both'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["world_size"] == "2"
    assert "val/mIoU" in run.data.metrics


def test_a_sweep_has_trials_on_both_nodes(cluster: Cluster) -> None:
    done = cluster.first.spikeseg(
        *("sweep", "demo", f"data.path={cluster.data}", *SMALL),
        *("trainer.max_steps=4", "trainer.evaluate_every=4", "optimizer.warmup_steps=0"),
        *("--trials", "2", "--concurrency", "2", "--name", "sweep"),
        *("--storage", str(cluster.storage)),
        **cluster.variables,
    )
    assert done.code == 0, done.output
    assert "2 trials, 2 at once" in done.output
    results = json.loads((cluster.storage / "sweep" / "results.json").read_text())
    assert [row["state"] for row in results] == ["COMPLETE"] * 2


def test_a_tracker_of_one_machine_is_refused_and_names_the_node(cluster: Cluster) -> None:
    serve = "import http.server as h; h.HTTPServer(('127.0.0.1', 5001), h.SimpleHTTPRequestHandler)"
    cluster.first.start("/usr/bin/env", "python3", "-c", f"{serve}.serve_forever()")
    address = "http://127.0.0.1:5001"
    wait_until_answers(cluster.first, address)
    told = cluster.variables | {"MLFLOW_TRACKING_URI": address}
    refused = cluster.first.spikeseg(*cluster.train("local"), **told)
    assert refused.code == 2
    assert re.search(
        rf"tracking {address}: node {cluster.second.address} \(\w+\) does not reach it "
        r"\(.*Connection refused\)",
        refused.output,
    ), refused.output
    assert not (cluster.storage / "local").exists()


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_a_storage_of_one_machine_is_refused_and_names_the_node(
    cluster: Cluster, verb: str
) -> None:
    words = cluster.train("blind", storage=cluster.apart)
    if verb == "sweep":
        words = (
            *("sweep", "demo", f"data.path={cluster.data}", "--name", "blind"),
            *("--storage", str(cluster.apart), "--concurrency", "2"),
        )
    refused = cluster.first.spikeseg(*words, **cluster.variables)
    assert refused.code == 2
    assert f"storage {cluster.apart}: node {cluster.second.address} (" in refused.output, (
        refused.output
    )
    assert "does not see it (No such file or directory)" in refused.output


def test_a_node_with_a_wrong_token_does_not_join(cluster: Cluster) -> None:
    cluster.leave()
    try:
        copy_token(cluster.first, cluster.second, secrets.token_hex(32))
        refused = cluster.second.spikeseg("cluster", "start", "--join", cluster.head)
        assert refused.code == 2, refused.output
        assert "refuses this machine's token" in refused.output
        assert len(refused.output.strip().splitlines()) == 1
    finally:
        copy_token(cluster.first, cluster.second)


def test_another_spikeseg_on_one_node_is_refused_and_a_submitted_job_brings_its_own(
    cluster: Cluster, repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "spikeseg"
    skipped = shutil.ignore_patterns("tests", "docs", ".git", ".venv", "__pycache__", "demo")
    shutil.copytree(repository, other, ignore=skipped)
    with (other / "platform" / "train" / "step.py").open("a") as file:
        file.write("\n# another version\n")
    before = cluster.second.variables["PYTHONPATH"]
    cluster.second.variables["PYTHONPATH"] = str(tmp_path / "other")
    try:
        cluster.join()
    finally:
        cluster.second.variables["PYTHONPATH"] = before
    refused = cluster.first.spikeseg(*cluster.train("mixed"), **cluster.variables)
    assert refused.code == 2
    assert f"spikeseg: node {cluster.second.address} (" in refused.output, refused.output
    assert "has another one (code " in refused.output
    assert not (cluster.storage / "mixed").exists()
    sent = cluster.first.spikeseg(
        *("submit", "--address", f"http://{cluster.first.address}:{DASHBOARD}", "--"),
        *cluster.train("shipped"),
        MLFLOW_TRACKING_URI=cluster.tracker,
    )
    assert sent.code == 0, sent.output
    assert (cluster.storage / "shipped" / "result.json").is_file()


@pytest.mark.skipif(
    shutil.which("faketime") is None, reason="Debian's package faketime is not installed"
)
def test_clocks_that_are_apart_cost_a_line(cluster: Cluster) -> None:
    cluster.second.before = ("faketime", "-f", "+3600s")
    try:
        cluster.join()
    finally:
        cluster.second.before = ()
    done = cluster.first.spikeseg(*cluster.train("apart"), **cluster.variables)
    assert done.code == 0, done.output
    line = re.search(r"node (\S+) \(\w+\): its clock is (\d+) s ahead of this", done.output)
    assert line is not None, done.output
    assert line[1] == cluster.second.address
    assert 3500 < int(line[2]) < 3700


def wait_for_checkpoints(started: Started, *runs: Path) -> None:
    until = time.monotonic() + 120
    while not all(list((run / "checkpoints").glob("step-*")) for run in runs):
        assert time.monotonic() < until, started.log.read_text()
        time.sleep(0.1)


def test_a_sweep_goes_on_where_a_node_is_lost(cluster: Cluster) -> None:
    cluster.join()
    started = cluster.first.start(
        *(*SPIKESEG, "sweep", "demo", f"data.path={cluster.data}", *SMALL),
        *("trainer.max_steps=40", "trainer.evaluate_every=40", "trainer.checkpoint_every=2"),
        *("optimizer.warmup_steps=0", "--trials", "2", "--concurrency", "2", "--name", "cut"),
        *("--storage", str(cluster.storage)),
        **cluster.variables,
    )
    trials = cluster.storage / "cut" / "trials"
    wait_for_checkpoints(started, trials / "0", trials / "1")
    cluster.second.kill()
    ended = started.wait()
    assert ended.code == 0, ended.output
    results = json.loads((cluster.storage / "cut" / "results.json").read_text())
    assert [row["state"] for row in results] == ["COMPLETE"] * 2


def test_a_training_goes_on_where_a_node_is_lost(cluster: Cluster) -> None:
    cluster.join()
    # What is seen is that it goes on: steps enough for the node to be lost in the middle.
    more = ("trainer.max_steps=60", "trainer.evaluate_every=60", "trainer.checkpoint_every=2")
    words = cluster.train("lost", "trainer.min_workers=1", *more)
    started = cluster.first.start(*SPIKESEG, *words, **cluster.variables)
    wait_for_checkpoints(started, cluster.storage / "lost")
    cluster.second.kill()
    started.wait_for("workers 1, before 2")
    ended = started.wait()
    assert ended.code == 0, ended.output
    assert (cluster.storage / "lost" / "result.json").is_file()
