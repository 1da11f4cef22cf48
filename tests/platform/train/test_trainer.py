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

from spikeseg.platform.config.recipes import dump
from spikeseg.platform.train.row_ledger import path_to_weights

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

    def kill_raylet(self) -> None:
        """Take away the cluster that this driver started."""
        children = psutil.Process(self._process.pid).children()
        (raylet,) = (process for process in children if process.name() == "raylet")
        raylet.kill()

    def ask_to_leave(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def code(self) -> int:
        return self._process.wait(SECONDS)

    def text(self) -> str:
        return self.log.read_text()


def wait_for(what: str, reached: Callable[[], bool], *, every: float = 0.05) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
        time.sleep(every)


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


def recipe(tmp_path: Path, data: Path, workers: int, *, checkpoint_every: int | None = 4) -> str:
    config = experiment(
        data,
        decoder="fpn",
        max_steps=STEPS,
        micro_batches=3,
        workers=workers,
        evaluate_every=16,
        checkpoint_every=checkpoint_every,
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
    print(f"seed {SEED}")
    text = recipe(tmp_path, pack_shapes(tmp_path / "data"), workers)
    quiet = Driver(tmp_path / "quiet", text)
    assert quiet.code() == 0, quiet.text()
    expected = final_files(only_run(tmp_path / "quiet"))

    storage = tmp_path / "killed"
    driver = Driver(storage, text)
    wait_for("the run's folder", lambda: bool(list(storage.glob("*/config.yaml"))))
    run = only_run(storage)
    # Two die in the evaluation of step 16, which begins when its last micro-batch is done.
    lines = 48 if workers == 2 else generator.randrange(12, 48)
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
    if workers == 3:
        # Rank 0 is ended with its driver, in the middle of this write.
        wait_for(
            "a checkpoint that is being written",
            lambda: any((run / "checkpoints").glob(".writing-*")),
            every=0.001,
        )
    driver.kill()
    left = [path.name for path in (run / "checkpoints").glob(".writing-*")]
    print(f"| {workers} | driver, {lines} micro-batches into attempt 2 | left {left} |")
    resumed = Driver(storage, "--resume", run.name)
    assert resumed.code() == 0, resumed.text()
    assert "resumed at step" in resumed.text()
    assert final_files(run) == expected, f"seed {SEED}"
    rows = [row for entry in path_to_weights(run, STEPS) for row in entry.ids]
    assert len(rows) == STEPS * 3
    for start in range(0, len(rows), 11):
        assert len(set(rows[start : start + 11])) == len(rows[start : start + 11])


def test_a_driver_that_is_told_to_leave_has_its_workers_write_a_checkpoint(tmp_path: Path) -> None:
    given = recipe(tmp_path, pack_shapes(tmp_path / "data"), 2, checkpoint_every=None)
    storage = tmp_path / "runs"
    driver = Driver(storage, given)
    wait_for("the run's folder", lambda: bool(list(storage.glob("*/config.yaml"))))
    run = only_run(storage)
    wait_for("9 micro-batches", lambda: steps_done(run) >= 9)
    driver.ask_to_leave()
    assert driver.code() == 1, driver.text()
    assert f"continue with --resume {run.name} --storage {storage}" in driver.text()
    # Workers look twice a second: an evaluation, which writes one too, may have come before.
    newest = max((run / "checkpoints").glob("step-*"))
    step = int(newest.name.partition("-")[2])
    assert f"asked to leave at step {step}" in driver.text()
    assert 3 <= step < STEPS and attempts(run) == 1
    # One worker goes on where two stood, in their order.
    resumed = Driver(storage, "--resume", run.name, "trainer.workers=1")
    assert resumed.code() == 0, resumed.text()
    assert f"resumed at step {step}" in resumed.text()
    assert "resumed with workers 1, before 2" in resumed.text()
    assert len(path_to_weights(run, STEPS)) == STEPS * 3


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


def test_a_driver_whose_cluster_is_gone_says_how_to_go_on(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    driver = Driver(storage, recipe(tmp_path, pack_shapes(tmp_path / "data"), 1))
    wait_for("the run's folder", lambda: bool(list(storage.glob("*/config.yaml"))))
    run = only_run(storage)
    wait_for("20 micro-batches", lambda: steps_done(run) >= 20)
    driver.kill_raylet()
    assert driver.code() == 1, driver.text()
    assert "Ray's raylet on this machine ended; continue with --resume" in driver.text()
    resumed = Driver(storage, "--resume", run.name)
    assert resumed.code() == 0, resumed.text()
    assert "resumed at step" in resumed.text()
