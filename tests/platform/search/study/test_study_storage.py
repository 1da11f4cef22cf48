"""Where a sweep's study lies, and that what is refused leaves nothing there."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest
from toy_sweep import listed, run_toys, toy_plan

from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.search import sweep as tuner
from spikeseg.platform.search.study.study_storage import open_storage


@pytest.fixture(autouse=True)
def starts_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Databases of MLflow's and dozens of models take seconds; other tests look at them."""
    monkeypatch.setattr(tuner, "check_trials", lambda plan: None)
    monkeypatch.setattr("spikeseg.platform.tracking.upload.uploader.sync", lambda *given: None)


def test_a_study_elsewhere_is_remembered_without_its_password(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_plan(tmp_path, **listed(4))
    monkeypatch.setenv("SPIKESEG_STUDY", str(tmp_path / "study.log"))
    folder = run_toys(data, tmp_path, name="toy").folder
    assert json.loads((folder / "plan.json").read_text())["study"] == f"{tmp_path / 'study.log'}"
    monkeypatch.delenv("SPIKESEG_STUDY")
    with pytest.raises(ConfigError) as caught:
        run_toys(data, tmp_path, resume="toy")
    assert f"its study lies in {tmp_path / 'study.log'}, and SPIKESEG_STUDY now makes it the " in (
        str(caught.value)
    )
    assert not (folder / "study.db").exists()
    monkeypatch.setenv("SPIKESEG_STUDY", f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ConfigError, match=r"its study lies in .*study.log, and SPIKESEG_STUDY now"):
        run_toys(data, tmp_path, resume="toy")
    assert not (tmp_path / "other.db").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKESEG_STUDY", "study.log")
    assert run_toys(data, tmp_path, resume="toy").counts == {"COMPLETE": 1}
    monkeypatch.setattr(tuner, "read_address", lambda: "postgresql://me:secret@db/studies")
    with pytest.raises(ConfigError, match="now makes it postgresql://db/studies"):
        run_toys(data, tmp_path, resume="toy")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "SPIKESEG_STUDY: is empty"),
        ("{folder}/none/study.log", "cannot be opened (No such file or directory)"),
        ("sqlite:///{folder}/none/study.db", "cannot be opened (No such file or directory)"),
        ("sqlite+nosuch:///{folder}/study.db", "its driver is not installed"),
        ("nosuch://me:secret@host:1/a", "got 'nosuch://[hidden]/a': its driver is not installed"),
        ("nosuch://me:secret@host:one/a", "got 'nosuch://[hidden]/a': is no address of a databa"),
        ("{folder}/toy.yaml", "toy.yaml': is no journal of Optuna's"),
        ("{folder}/number", "number': is no journal of Optuna's"),
        ("{folder}/notes", "notes': is no journal of Optuna's"),
        ("{folder}/word", "word': is no journal of Optuna's"),
        ("sqlite://", "got 'sqlite://': must be sqlite:///PATH, without options"),
        ("sqlite+pysqlite:///:memory:", "a study in memory ends with its process"),
        ("sqlite:///file:a.db?mode=memory&uri=true", "must be sqlite:///PATH, without options"),
        ("sqlite:///file:a.db?mode=ro&uri=true", "one that is only read takes no trials"),
    ],
    ids=[
        "empty",
        "journal in no folder",
        "sqlite in no folder",
        "no driver for a file",
        "no driver",
        "no port",
        "no journal",
        "a number",
        "a line",
        "a line without end",
        "no file",
        "in memory",
        "memory by option",
        "only read",
    ],
)
def test_an_address_that_cannot_hold_a_study_is_refused_and_leaves_nothing(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    toy_plan(tmp_path, **listed(4))
    texts = {"number": "5\n", "notes": "hello\n", "word": "hello"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("SPIKESEG_STUDY", address.format(folder=tmp_path))
    with pytest.raises(ConfigError) as caught:
        run_toys(data, tmp_path, name="toy")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "toy").exists()
    assert {name: (tmp_path / name).read_text() for name in texts} == texts


@pytest.mark.parametrize("address", ["sqlite:///{folder}/all.db", "{folder}/all.log"])
def test_two_new_sweeps_of_one_name_do_not_share_a_study(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("SPIKESEG_STUDY", address.format(folder=tmp_path))
    for storage in (tmp_path / "one", tmp_path / "two"):
        toy_plan(storage, **listed(4))
    run_toys(data, tmp_path / "one", name="toy")
    with pytest.raises(ConfigError, match="holds a study toy already, of another sweep"):
        run_toys(data, tmp_path / "two", name="toy")
    assert not (tmp_path / "two" / "toy").exists()


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (False, "--resume toy: its study is gone from .*/toy$"),
        (True, "trial 0 has ended, and the study does not know it"),
    ],
    ids=["no study", "an empty one"],
)
def test_a_study_that_lost_its_trials_is_refused_and_no_trial_changes(
    tmp_path: Path, data: Path, left: bool, message: str
) -> None:
    toy_plan(tmp_path, **listed(4))
    folder = run_toys(data, tmp_path, name="toy").folder
    (folder / "study.db").unlink()
    if left:
        open_storage(f"sqlite:///{folder / 'study.db'}")
    with pytest.raises(ConfigError, match=message):
        run_toys(data, tmp_path, resume="toy")
    assert (folder / "study.db").exists() == left
    assert json.loads((folder / "trials/0/verdict.json").read_text())["state"] == "COMPLETE"


def test_a_database_of_another_program_is_refused_and_left_as_it_is(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna makes its tables first, and looks afterwards."""
    toy_plan(tmp_path, **listed(4))
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE experiments (name TEXT)")
    before = (tmp_path / "other.db").read_bytes()
    monkeypatch.setenv("SPIKESEG_STUDY", f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ConfigError, match=r"holds tables of another program .experiments, "):
        run_toys(data, tmp_path, name="toy")
    assert (tmp_path / "other.db").read_bytes() == before


@pytest.mark.parametrize("address", ["sqlite:///{folder}/all.db", "{folder}/all.log"])
def test_a_sweep_that_cannot_run_makes_no_study(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    def full(*given: object, **named: object) -> None:
        raise ConfigError("concurrency: got 99: too many")

    toy_plan(tmp_path, **listed(4))
    monkeypatch.setenv("SPIKESEG_STUDY", address.format(folder=tmp_path))
    monkeypatch.setattr(tuner, "connected", lambda cpus: contextlib.nullcontext())
    monkeypatch.setattr(tuner, "worker_nodes", list)
    monkeypatch.setattr("ray.nodes", list)
    monkeypatch.setattr(tuner, "trials_at_once", full)
    with pytest.raises(ConfigError, match="got 99"):
        run_toys(data, tmp_path, name="toy", here=False)
    assert not list(tmp_path.glob("all.*"))


@pytest.mark.parametrize("address", ["sqlite:///{folder}/all.db", "{folder}/all.log"])
def test_a_study_that_is_gone_is_not_begun_again(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    toy_plan(tmp_path, **listed(4))
    monkeypatch.setenv("SPIKESEG_STUDY", address.format(folder=tmp_path))
    run_toys(data, tmp_path, name="toy")
    for file in tmp_path.glob("all.*"):
        file.unlink()
    with pytest.raises(ConfigError, match="--resume toy: its study is gone from "):
        run_toys(data, tmp_path, resume="toy")
    assert not list(tmp_path.glob("all.*"))


def test_damaged_files_of_a_sweep_are_named(tmp_path: Path, data: Path) -> None:
    toy_plan(tmp_path, **listed(4))
    folder = run_toys(data, tmp_path, name="toy").folder
    (folder / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"--resume toy: its study: got .*cannot be opened"):
        run_toys(data, tmp_path, resume="toy")
    (folder / "plan.json").write_text('{"recipe": ')
    with pytest.raises(ConfigError, match=r"toy/plan\.json: is damaged"):
        run_toys(data, tmp_path, resume="toy")
