"""Real Ray Train workers and a real driver are killed; the weights do not show it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from tiny import experiment, pack_shapes

from spikeseg.platform.config import dump
from spikeseg.platform.train.ledger import path_to_weights

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEED = int(os.environ.get("SPIKESEG_CRASH_SEED", time.time_ns() % 1_000_000))
STEPS = 40
SECONDS = 900


class Driver:
    """`spikeseg train` as a person starts it."""

    def __init__(self, storage: Path, *arguments: str) -> None:
        self.log = storage / f"driver-{time.time_ns()}.log"
        storage.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "spikeseg.jobs.train", *arguments]
        with self.log.open("w") as file:
            self._process = subprocess.Popen(
                [*command, "--storage", str(storage)],
                stdout=file,
                stderr=file,
                # No node is lost here, and a busy machine takes its time to start workers.
                env={**os.environ, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"},
            )

    def workers(self) -> list[psutil.Process]:
        """The Ray Train worker processes below this driver, in the order of their start."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda process: process.create_time())

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def code(self) -> int:
        return self._process.wait(SECONDS)

    def text(self) -> str:
        return self.log.read_text()


def wait_for(what: str, reached: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
        time.sleep(0.05)


def steps_done(run: Path) -> int:
    """Steps in the newest attempt's ledger, counted over all ranks."""
    files = sorted((run / "ledger").glob("*.jsonl"))
    if not files:
        return 0
    newest = files[-1].name.partition("-")[0]
    return sum(
        1 for path in files if path.name.startswith(newest) for _ in path.read_text().splitlines()
    )


def attempts(run: Path) -> int:
    return len(list((run / "attempts").iterdir())) if (run / "attempts").is_dir() else 0


def final_files(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS:08d}"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def recipe(tmp_path: Path, data: Path, workers: int) -> str:
    config = experiment(
        data,
        decoder="fpn",
        max_steps=STEPS,
        micro_batches=3,
        workers=workers,
        evaluate_every=16,
        checkpoint_every=4,
        ledger=True,
    )
    path = tmp_path / "tiny.yaml"
    path.write_text(dump(config))
    return str(path)


def only_run(storage: Path) -> Path:
    return next(path.parent for path in storage.glob("*/config.yaml"))


@pytest.mark.parametrize("workers", [2, 3])
def test_killed_workers_and_a_killed_driver_leave_the_same_bytes(
    tmp_path: Path, workers: int
) -> None:
    generator = random.Random(SEED * 10 + workers)
    text = recipe(tmp_path, pack_shapes(tmp_path / "data"), workers)
    quiet = Driver(tmp_path / "quiet", text)
    assert quiet.code() == 0, quiet.text()
    expected = final_files(only_run(tmp_path / "quiet"))

    storage = tmp_path / "killed"
    driver = Driver(storage, text)
    wait_for("the run's folder", lambda: bool(list(storage.glob("*/config.yaml"))))
    run = only_run(storage)
    lines = generator.randrange(12, 48)
    wait_for(f"{lines} micro-batches", lambda: attempts(run) == 1 and steps_done(run) >= lines)
    victim = generator.randrange(workers)
    driver.workers()[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    wait_for("the second attempt's steps", lambda: attempts(run) >= 2 and steps_done(run) >= 3)
    print(
        f"| {workers} | worker {victim} after {lines} micro-batches | back after "
        f"{time.monotonic() - killed:.0f} s |"
    )
    lines = generator.randrange(6, 30)
    wait_for(f"{lines} micro-batches", lambda: steps_done(run) >= lines)
    driver.kill()
    print(f"| {workers} | driver, {lines} micro-batches into attempt 2 | resumed by hand |")
    resumed = Driver(storage, "--resume", run.name)
    assert resumed.code() == 0, resumed.text()
    assert "resumed at step" in resumed.text()
    assert final_files(run) == expected, f"seed {SEED}"
    rows = [row for entry in path_to_weights(run, STEPS) for row in entry.ids]
    assert len(rows) == STEPS * 3
    for start in range(0, len(rows), 11):
        assert len(set(rows[start : start + 11])) == len(rows[start : start + 11])


def test_bad_data_on_one_worker_ends_the_run_with_its_name(tmp_path: Path) -> None:
    data = pack_shapes(tmp_path / "data")
    shard = next(path for path in data.glob("*.parquet") if "train" in path.name)
    image = pq.read_table(shard).column("image").to_pylist()[7]
    # Damaged in place: a file of another size would be refused before work starts.
    content = shard.read_bytes()
    at = content.find(image)
    assert at > 0
    shard.write_bytes(content[:at] + bytes(len(image)) + content[at + len(image) :])
    driver = Driver(tmp_path / "runs", recipe(tmp_path, data, 2))
    assert driver.code() == 1, driver.text()
    assert "train-000007" in driver.text()
    assert attempts(only_run(tmp_path / "runs")) == 1
