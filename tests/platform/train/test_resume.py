"""A run is continued as the run it is: what decides results stays, what is gone is said."""

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packed_versions import to_version_2
from tiny import experiment, pack_shapes

from spikeseg.datasets.packed.upgrade import upgrade_packed
from spikeseg.platform.checkpoint.run_folder import NoGoodCheckpointError, RunFolder
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.recipes import ConfigError, Resolved, load_resolved
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.tracking.journal_lines import read_records
from spikeseg.platform.train.failure import Decision, decide
from spikeseg.platform.train.loop import Training
from spikeseg.platform.train.resume import require_same, resume_config
from spikeseg.platform.train.trainer import resume_training, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeseg.platform.train.tracked_training.start_sender", lambda *_: None)


def small(data: Path, **trainer: Any) -> ExperimentConfig:
    given = {"max_steps": 4, "micro_batches": 2, "evaluate_every": 2, "test": False}
    return experiment(data, decoder="fpn", **{**given, **trainer})


def half_trained(data: Path, storage: Path) -> RunFolder:
    """A run that was killed after its first evaluation."""
    config = small(data)
    run = RunFolder(storage / "run")
    run.write("config.yaml", yaml.safe_dump(json.loads(config.model_dump_json())))
    run.write("origins.json", "{}")
    run.claim()
    made = Training(config, run, group=OneWorker(), recorder=None, progress=None)
    made.start()
    evaluations = made.evaluations()
    assert next(evaluations).step == 2
    evaluations.close()
    return run


def test_a_setting_that_decides_no_result_may_change_and_stays_changed(
    data: Path, tmp_path: Path
) -> None:
    train(Resolved(small(data), {}), storage=tmp_path, name="quiet")
    run = half_trained(data, tmp_path)
    (run.path / "origins.json").unlink()
    resume_training("run", ["trainer.log_every=1"], storage=tmp_path)
    step = "step-00000004"
    for name in ("model", "optimizer", "ema"):
        ours, quiet = (
            (tmp_path / folder / "checkpoints" / step / f"{name}.safetensors").read_bytes()
            for folder in ("run", "quiet")
        )
        assert ours == quiet
    kept = load_resolved((run.path / "config.yaml").read_text()).config
    assert kept.trainer.log_every == 1
    assert json.loads((run.path / "origins.json").read_text()) == {
        "trainer.log_every": "command line"
    }
    steps = [r["step"] for r in read_records(run.path / "journal") if r["kind"] == "metrics"]
    assert 3 in steps


@pytest.mark.parametrize("key", ["seed", "trainer.max_steps", "model.neuron.levels", "data.x"])
def test_a_setting_that_decides_results_is_refused_on_the_command_line(
    data: Path, tmp_path: Path, key: str
) -> None:
    run = half_trained(data, tmp_path)
    before = (run.path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"command line: {key}: it decides results"):
        resume_training("run", [f"{key}=3"], storage=tmp_path)
    assert (run.path / "config.yaml").read_bytes() == before


def test_an_edited_configuration_is_refused_with_both_values(data: Path, tmp_path: Path) -> None:
    run = half_trained(data, tmp_path)
    tree = yaml.safe_load((run.path / "config.yaml").read_text())
    tree["optimizer"]["lr"] = 1e-3
    (run.path / "config.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"optimizer.lr: 0.001, but .* trained with 0.002"):
        resume_training("run", storage=tmp_path)
    assert [path.name for path in (run.path / "checkpoints").glob("step-*")] == ["step-00000002"]


def test_every_setting_of_an_experiment_is_free_or_held(data: Path) -> None:
    config = small(data)
    text = yaml.safe_dump(json.loads(config.model_dump_json()))
    held = config.model_copy(update={"seed": config.seed + 1})
    free = config.model_copy(
        update={"trainer": config.trainer.model_copy(update={"workers": 2, "keep_every": 9})}
    )
    require_same(text, free)
    with pytest.raises(ConfigError, match="seed: 6, but the run's checkpoint was trained with 5"):
        require_same(text, held)


def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write("config.yaml", "name: [")
    with pytest.raises(ConfigError, match=r"run/config\.yaml"):
        resume_config(run, [])


class DiesBeforeItRecords(Journal):
    """The process ends between an evaluation and its record."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if "val/mIoU" in values:
            raise KeyboardInterrupt
        super().metrics(step, values)


def test_a_death_between_measuring_and_recording_leaves_no_gap(data: Path, tmp_path: Path) -> None:
    given = {"run_name": "run", "tags": {}, "params": {}}
    for kind in (DiesBeforeItRecords, Journal):
        run = RunFolder(tmp_path / "run")
        run.claim()
        journal = kind(tmp_path / "run/journal", **given)
        made = Training(small(data), run, group=OneWorker(), recorder=journal, progress=None)
        made.start()
        with contextlib.suppress(KeyboardInterrupt):
            assert [item.step for item in made.evaluations() if not item.replayed] == [2, 4]
    records = list(read_records(tmp_path / "run/journal"))
    scored = [r["step"] for r in records if "val/mIoU" in r.get("values", {})]
    assert scored == [2, 4]


def test_checkpoints_that_somebody_deleted_are_not_a_fresh_start(
    data: Path, tmp_path: Path
) -> None:
    run = half_trained(data, tmp_path)
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(NoGoodCheckpointError, match="its checkpoints are gone"):
        RunFolder(run.path).newest()
    assert not list((run.path / "checkpoints").iterdir())


def test_storage_that_answers_with_an_error_is_no_damage(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = half_trained(data, tmp_path)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as once:
        once.setattr(hashlib, "file_digest", broken)
        with pytest.raises(OSError, match="Input/output error") as caught:
            run.newest()
    assert decide(caught.value) is Decision.RETRY
    newest = run.newest()
    assert newest is not None and newest.step == 2 and not run.damaged


@pytest.mark.slow
def test_a_run_goes_on_with_its_data_after_an_upgrade(tmp_path: Path) -> None:
    data = to_version_2(pack_shapes(tmp_path / "data"))
    train(Resolved(small(data), {}), storage=tmp_path, name="quiet")
    half_trained(data, tmp_path)
    assert upgrade_packed(data)
    resume_training("run", [], storage=tmp_path)
    ours, quiet = (
        (tmp_path / name / "checkpoints" / "step-00000004" / "model.safetensors").read_bytes()
        for name in ("run", "quiet")
    )
    assert ours == quiet
