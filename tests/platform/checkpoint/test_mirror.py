"""Checkpoints have a second home on any pyarrow file system, as trustworthy as the first."""

import shutil
from pathlib import Path

import pytest
import torch
from journals import expected_rows, metric_rows, open_journal, picture, run_count, write_steps
from mlflow import MlflowClient
from tiny import experiment, pack_shapes

from spikeseg.platform.checkpoint.background_writer import CheckpointWriter
from spikeseg.platform.checkpoint.mirror import Mirror, fetch_newest_journal, find_newest
from spikeseg.platform.checkpoint.run_folder import FencedError, RunFolder
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.recipes import ConfigError, Resolved, dump
from spikeseg.platform.tracking.journal import file_of
from spikeseg.platform.tracking.journal_lines import read_records
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.uploader import sync
from spikeseg.platform.train.failure import Decision, decide
from spikeseg.platform.train.loop import Training
from spikeseg.platform.train.trainer import TrainingFailedError, preflight, resume_training, train

TENSORS = {"model": {"weight": torch.arange(8.0)}}


def mirrored(tmp_path: Path, *steps: int, newest: int = 2) -> tuple[RunFolder, Mirror]:
    run = RunFolder(tmp_path / "run")
    run.claim()
    run.write("config.yaml", "a: 1\n")
    run.write("origins.json", "{}")
    mirror = Mirror((tmp_path / "far").as_uri(), "run")
    mirror.claim(run)
    writer = CheckpointWriter(run, newest=newest, every=None)
    for step in steps:
        writer.save(step, TENSORS, {"history": []}, best_step=None)
        writer.flush()
        mirror.put(run, step)
    writer.close()
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
    newest = find_newest(run, mirror)
    assert newest is not None and newest.step == 3
    shutil.rmtree(run.path / "checkpoints" / "step-00000003")
    torn = tmp_path / "far" / "run" / "checkpoints" / "step-00000003" / "model.safetensors"
    torn.write_bytes(b"torn")
    newest = find_newest(run, mirror)
    assert newest is not None and newest.step == 2


def test_a_mirror_that_is_away_costs_a_warning_and_not_the_run(
    tmp_path: Path,
) -> None:
    run, mirror = mirrored(tmp_path, 1)
    shutil.rmtree(tmp_path / "far")
    (tmp_path / "far").write_text("no folder")
    lines: list[str] = []
    writer = CheckpointWriter(run, newest=2, every=None, mirror=mirror, tell=lines.append)
    writer.save(2, TENSORS, {"history": []}, best_step=None)
    writer.close()
    assert any("the checkpoint of step 2 was not copied" in line for line in lines)
    assert "lacks the checkpoint of step 2; the newest one that this start copied: no" in lines[-1]
    assert writer.mirror_lacks == lines[-1]
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
        made.start()
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


def test_a_run_that_comes_back_from_the_mirror_is_the_same_run_for_mlflow(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path)
    journal = open_journal(run.path / "journal")
    write_steps(journal, range(6))
    run.save(5, TENSORS, {"history": []})
    mirror.put(run, 5)
    write_steps(journal, range(6, 12))
    run.save(11, TENSORS, {"history": []})
    mirror.put(run, 11)
    write_steps(journal, range(12, 15))
    run_id = sync(journal.folder, tracking_uri(tmp_path), "lost")
    shutil.rmtree(run.path)

    other = tmp_path / "other"
    Mirror((tmp_path / "far").as_uri(), "run").fetch_run(other)
    assert file_of(other / "journal", "pictures/val/00000010.png").read_bytes() == picture(10)
    again = open_journal(other / "journal")
    assert again.id == journal.id
    write_steps(again, range(12, 20))
    assert sync(again.folder, tracking_uri(tmp_path), "lost") == run_id
    assert run_count(tmp_path) == 1
    assert metric_rows(tmp_path, run_id) == expected_rows(range(20))


def test_a_folder_that_stayed_behind_takes_the_journal_that_went_on(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path)
    journal = open_journal(run.path / "journal")
    write_steps(journal, range(4))
    behind = tmp_path / "behind" / "run"
    shutil.copytree(run.path, behind)
    write_steps(journal, range(4, 9))
    run.save(8, TENSORS, {"history": []})
    mirror.put(run, 8)
    for _ in range(2):
        fetch_newest_journal(RunFolder(behind), (tmp_path / "far").as_uri())
        whole = (run.path / "journal" / "records.jsonl").read_bytes()
        assert (behind / "journal" / "records.jsonl").read_bytes() == whole
        write_steps(journal, range(9, 12))
        shutil.copytree(run.path, behind, dirs_exist_ok=True)
    assert file_of(behind / "journal", "pictures/val/00000005.png").read_bytes() == picture(5)


def test_a_torn_copy_of_the_records_leaves_the_one_before(tmp_path: Path) -> None:
    run, mirror = mirrored(tmp_path)
    journal = open_journal(run.path / "journal")
    write_steps(journal, range(6))
    run.save(5, TENSORS, {"history": []})
    mirror.put(run, 5)
    (whole,) = (tmp_path / "far" / "run" / "journal" / "records").iterdir()
    whole.with_name("00000011-000000009999.jsonl").write_bytes(whole.read_bytes()[:50])
    mirror.fetch_run(tmp_path / "other")
    assert list(read_records(tmp_path / "other" / "journal")) == list(read_records(journal.folder))


def test_a_mirror_gets_each_picture_once_and_a_text_that_changed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = mirrored(tmp_path)
    journal = open_journal(run.path / "journal")
    written: list[str] = []
    write = Mirror._write

    def remember(mirror: Mirror, name: str, data: bytes) -> None:
        written.append(name)
        write(mirror, name, data)

    monkeypatch.setattr(Mirror, "_write", remember)
    for step, text in ((1, "a"), (2, "ab"), (3, "ab")):
        # A start of its own each time, as after kills.
        mirror = Mirror((tmp_path / "far").as_uri(), "run")
        mirror.claim(run)
        journal.image("val", step, picture(step))
        journal.text("events.txt", text)
        run.save(step, TENSORS, {"history": []})
        written.clear()
        mirror.put(run, step)
        sent = [name for name in written if name.startswith("journal/files/")]
        new = f"journal/files/pictures/val/{step:08d}.png"
        assert sent == ["journal/files/events.txt", new]
        (records,) = [name for name in written if name.startswith("journal/records/")]
        assert written.index(new) < written.index(records)
        assert written[-1] == f"checkpoints/step-{step:08d}/manifest.json"
        journal.text("events.txt", f"{text}c")
        run.save(step + 10, TENSORS, {"history": []})
        written.clear()
        mirror.put(run, step + 10)
        assert [n for n in written if "/files/" in n] == ["journal/files/events.txt"]


def test_a_training_whose_machine_was_lost_is_resumed_as_the_same_run(tmp_path: Path) -> None:
    far, first = (tmp_path / "far").as_uri(), tmp_path / "first"
    config = experiment(
        pack_shapes(tmp_path / "data"),
        decoder="fpn",
        max_steps=4,
        micro_batches=1,
        evaluate_every=1,
        workers=0,
        mirror=far,
    )

    def lose_the_machine(line: str) -> None:
        if line.startswith("step 3"):
            raise OSError("the machine is gone")

    with pytest.raises(TrainingFailedError, match="the machine is gone"):
        train(Resolved(config, {}), storage=first, name="run", progress=lose_the_machine)
    shutil.rmtree(first / "run")
    outcome = resume_training(f"{far}/run", storage=first)
    assert outcome.metrics
    client = MlflowClient(tracking_uri(first))
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert found.info.status == "FINISHED"
    steps = [p.step for p in client.get_metric_history(found.info.run_id, "val/mIoU")]
    assert sorted(steps) == [1, 2, 3, 4]
