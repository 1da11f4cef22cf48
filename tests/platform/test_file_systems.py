"""Work on file systems that lack something: each thing alone, all together, and no space left."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from lacking import KINDS, run_lacking
from tiny import pack_shapes

CLI = ("-m", "spikeseg.jobs.cli")
SMALL = (
    *("trainer.micro_batches=1", "trainer.micro_batch_size=4", "trainer.max_steps=6"),
    *("trainer.evaluate_every=2", "trainer.log_every=1", "trainer.energy_images=1"),
    *("tracking.first_step=false", "trainer.keep_checkpoints=1"),
    *("data.transform.crop=[32,32]", "tracking.images=1"),
)
HOUSEKEEPING = """
import sys
from pathlib import Path
import pyarrow as pa
import torch
from spikeseg.datasets.packed.files import hold_lock, write_file
from spikeseg.datasets.packed.storage import Storage
from spikeseg.platform.checkpoint.run_folder import RunFolder
root = Path(sys.argv[1])
run = RunFolder(root / "run")
run.claim()
for step in range(1, 5):
    state = {"history": [{"step": step, "metrics": {"val/mIoU": 1.0}}]}
    run.save(step, {"model": {"w": torch.full((9,), float(step))}}, state)
    run.retain(1, ())
    run.write("config.yaml", f"step: {step}")
Storage.at(root / "packed").write("a.bin", b"content")
with hold_lock(root / "lock"):
    pass
newest = run.newest()
assert newest is not None and newest.step == 4, newest
assert newest.tensors("model")["w"].tolist() == [4.0] * 9
again = RunFolder(root / "run")
again.claim()
assert again.newest().step == 4 and not again.damaged, again.damaged
visible = sorted(p.name for p in (root / "run" / "checkpoints").iterdir() if p.name[0] != ".")
assert visible == ["step-00000004"], visible
print("kept")
"""


def run_housekeeping(root: Path, *kinds: str) -> subprocess.CompletedProcess[str]:
    root.mkdir()
    return run_lacking(["-c", HOUSEKEEPING, root], root, *kinds)


def test_checkpoints_files_and_locks_do_without_all_of_it(tmp_path: Path) -> None:
    ran = run_housekeeping(tmp_path / "root", *KINDS)
    assert ran.stdout == "kept\n", ran.stderr
    assert "has no flock" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_files_and_locks_do_without_each_of_it(tmp_path: Path, kind: str) -> None:
    ran = run_housekeeping(tmp_path / "root", kind)
    assert ran.stdout == "kept\n", ran.stderr


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o027, 0o640), (0o022, 0o644)])
def test_packed_files_have_the_mode_that_the_umask_gives(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        data = pack_shapes(tmp_path / "data")
    finally:
        os.umask(before)
    modes = {file.stat().st_mode & 0o777 for file in data.rglob("*") if file.is_file()}
    assert modes == {mode}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds", [*((kind,) for kind in KINDS), KINDS], ids=[*KINDS, "all of them"]
)
def test_pack_train_evaluate_sweep_and_sync_work_without(
    tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    data, runs = f"data.path={root / 'data'}", ("--storage", root / "runs")
    pack = ("data", "pack", "shapes", "--size", "32", "32", "--rows", "12", "4", "4", "--output")
    for command in (
        (*pack, root / "data"),
        ("train", "shapes_tiny", data, "trainer.workers=0", *SMALL, *runs),
        ("evaluate", "latest", "--json", *runs),
        ("track", "sync", "latest", *runs),
        ("sweep", "demo", data, *SMALL, "--here", "--trials", "2", *runs),
    ):
        ran = run_lacking([*CLI, *command], root, *kinds)
        assert ran.returncode == 0, (command, ran.stderr[-2000:])
        if command[0] == "evaluate":
            assert json.loads(ran.stdout)["rows"] == 4
    (run,) = [p.parent for p in (root / "runs").glob("*/result.json")]
    steps = {p.name for p in (run / "checkpoints").glob("step-*")}
    assert 1 <= len(steps) <= 2 and "step-00000006" in steps


@pytest.mark.slow
def test_a_disk_that_fills_loses_nothing_that_was_kept_and_is_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    data = pack_shapes(root / "data")
    runs = ("--storage", root / "runs")
    command = [
        *CLI,
        "train",
        "shapes_tiny",
        f"data.path={data}",
        "trainer.workers=0",
        *SMALL,
        *runs,
    ]
    assert run_lacking(command, root, "space").returncode == 0
    (run,) = (root / "runs").glob("shapes_tiny-*")
    kept = {p: p.read_bytes() for p in (run / "checkpoints").rglob("*") if p.is_file()}
    (run / "result.json").unlink()
    root.with_name("root.full").touch()
    again = [*CLI, "train", "--resume", run.name, *runs]
    ran = run_lacking(again, root, "space")
    assert ran.returncode != 0
    last = ran.stderr.splitlines()[-1]
    assert "No space left on device" in last and str(run) in last
    assert {path: path.read_bytes() for path in kept} == kept
    root.with_name("root.full").unlink()
    assert run_lacking(again, root, "space").returncode == 0
