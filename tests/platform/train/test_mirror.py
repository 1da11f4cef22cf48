"""Checkpoints have a second home on any pyarrow file system, as trustworthy as the first."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny import experiment, pack_shapes

from spikeseg.platform.config import ConfigError, Resolved, dump
from spikeseg.platform.train.checkpoint import FencedError, RunFolder
from spikeseg.platform.train.failure import Decision, decide
from spikeseg.platform.train.loop import Training
from spikeseg.platform.train.mirror import Mirror, newest_anywhere
from spikeseg.platform.train.reduction import OneWorker
from spikeseg.platform.train.trainer import preflight
from spikeseg.platform.train.writer import CheckpointWriter

TENSORS = {"model": {"weight": torch.arange(8.0)}}


def mirrored(tmp_path: Path, *steps: int, newest: int = 2) -> tuple[RunFolder, Mirror]:
    run = RunFolder(tmp_path / "run")
    run.claim()
    run.write("config.yaml", "a: 1\n")
    run.write("origins.json", "{}")
    mirror = Mirror((tmp_path / "far").as_uri(), "run")
    mirror.claim(run)
    writer = CheckpointWriter(run, newest=newest, every=None, mirror=mirror)
    for step in steps:
        writer.save(step, TENSORS, {"history": []}, best_step=None)
    writer.flush()
    return run, mirror


def test_the_mirror_has_what_the_folder_has(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path, 1, 2, 3)
    assert mirror.steps() == [3, 2]
    for step in (2, 3):
        for path in (run.path / "checkpoints" / f"step-{step:08d}").iterdir():
            far = tmp_path / "far" / "run" / "checkpoints" / path.parent.name / path.name
            assert far.read_bytes() == path.read_bytes()


def test_a_lost_folder_comes_back_from_the_newest_good_copy(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path, 1, 2, 3)
    shutil.rmtree(run.path)
    far = tmp_path / "far" / "run" / "checkpoints"
    (far / "step-00000003" / "model.safetensors").write_bytes(b"torn")
    mirror.fetch_run(run.path)
    again = RunFolder(run.path)
    again.claim()
    found = mirror.fetch(again)
    assert found is not None and found.step == 2
    assert (run.path / "config.yaml").read_text() == "a: 1\n"
    newest = again.newest()
    assert newest is not None and newest.step == 2


def test_a_copy_without_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path, 1)
    (tmp_path / "far" / "run" / "checkpoints" / "step-00000001" / "manifest.json").unlink()
    assert mirror.steps() == []
    assert mirror.fetch(run) is None


def test_who_claimed_the_mirror_last_owns_it(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path, 1)
    Mirror((tmp_path / "far").as_uri(), "run").claim(run)
    run.save(2, TENSORS, {"history": []})
    with pytest.raises(FencedError, match="another process continues this run"):
        mirror.put(run, 2)
    assert mirror.steps() == [1]


def test_who_lost_the_mirror_leaves_a_copy_of_the_same_step_alone(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path, 1, 2)
    far = tmp_path / "far" / "run" / "checkpoints" / "step-00000002" / "model.safetensors"
    Mirror((tmp_path / "far").as_uri(), "run").claim(run)
    before = far.read_bytes()
    run.save(2, {"model": {"weight": torch.zeros(8)}}, {"history": []})
    with pytest.raises(FencedError, match="another process continues this run"):
        mirror.put(run, 2)
    assert mirror.steps() == [2, 1] and far.read_bytes() == before


def test_a_folder_that_stayed_behind_goes_on_from_the_mirrors_newer_copy(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path, 1, 2, 3)
    shutil.rmtree(run.path / "checkpoints" / "step-00000003")
    newest = newest_anywhere(run, mirror)
    assert newest is not None and newest.step == 3
    shutil.rmtree(run.path / "checkpoints" / "step-00000003")
    torn = tmp_path / "far" / "run" / "checkpoints" / "step-00000003" / "model.safetensors"
    torn.write_bytes(b"torn")
    newest = newest_anywhere(run, mirror)
    assert newest is not None and newest.step == 2


def test_a_mirror_that_is_away_costs_a_warning_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, mirror = mirrored(tmp_path, 1)
    shutil.rmtree(tmp_path / "far")
    (tmp_path / "far").write_text("no folder")
    writer = CheckpointWriter(run, newest=2, every=None, mirror=mirror)
    writer.save(2, TENSORS, {"history": []}, best_step=None)
    writer.flush()
    assert "step 2 has no copy in the mirror" in caplog.text
    newest = run.newest()
    assert newest is not None and newest.step == 2


def test_a_mirror_that_is_away_at_a_restart_is_worth_another_attempt(tmp_path: Path) -> None:
    (tmp_path / "far").write_text("no folder")
    with pytest.raises(OSError, match=r"mirror file://.*far") as caught:
        Mirror((tmp_path / "far").as_uri(), "run")
    assert decide(caught.value) is Decision.RETRY


def test_training_goes_on_from_the_mirror_when_the_folder_lost_its_checkpoints(
    tmp_path: Path,
) -> None:
    config = experiment(
        pack_shapes(tmp_path / "data"),
        decoder="fpn",
        max_steps=2,
        micro_batches=1,
        evaluate_every=1,
        mirror=(tmp_path / "far").as_uri(),
    )

    def training() -> tuple[Training, list[str]]:
        run = RunFolder(tmp_path / "run")
        run.claim()
        run.write("config.yaml", dump(config))
        lines: list[str] = []
        made = Training(config, run, group=OneWorker(), recorder=None, progress=lines.append)
        return made, lines

    first, _ = training()
    for _ in first.evaluations():
        pass
    expected = (tmp_path / "run/checkpoints/step-00000002/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run")
    shutil.rmtree(tmp_path / "far" / "run" / "checkpoints" / "step-00000002")
    second, lines = training()
    assert "attempt 1 of run: resumed at step 1" in lines
    for _ in second.evaluations():
        pass
    again = (tmp_path / "run/checkpoints/step-00000002/model.safetensors").read_bytes()
    assert again == expected


def test_an_address_that_nobody_knows_is_refused_before_work_starts(tmp_path: Path) -> None:
    config = experiment(pack_shapes(tmp_path / "data"), mirror="nowhere://bucket/runs")
    with pytest.raises(ConfigError, match=r"trainer\.mirror: mirror nowhere://bucket/runs: "):
        preflight(Resolved(config, {}), tmp_path / "runs")
