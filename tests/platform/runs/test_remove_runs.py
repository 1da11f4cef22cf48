"""Only what nothing needs is removed: no live run, no part of a sweep, nothing that one reads."""

import os
import socket
import time
from pathlib import Path

import pytest
from run_folders import CONFIG, end, grow_old, make_run, make_sweep, result_row, start

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.runs.remove_runs import plan_removal, remove_run


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """An ended run and an ended sweep."""
    end(make_run(tmp_path / "one"), "FINISHED")
    end(make_sweep(tmp_path / "sweep-one", [result_row(0, 1.0, 1.0)]), "FINISHED")
    grow_old(tmp_path)
    return tmp_path


@pytest.mark.parametrize("word", ["one", "sweep-one"])
def test_what_has_ended_is_removed_whole(storage: Path, word: str) -> None:
    (removal,) = plan_removal([word, word], storage)
    files = [path for path in (storage / word).rglob("*") if path.is_file()]
    assert removal.frees == sum(path.stat().st_size for path in files) > 0
    remove_run(removal)
    assert word not in [path.name for path in storage.iterdir()]
    assert len(list(storage.iterdir())) == 1


def test_records_that_mlflow_lacks_are_named_before_they_are_lost(storage: Path) -> None:
    (removal,) = plan_removal(["one"], storage)
    size = (storage / "one" / "journal" / "records.jsonl").stat().st_size
    assert removal.warning == f"{size} bytes of its journal are not in MLflow"


def refusal(storage: Path, word: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_removal([word], storage)
    return str(caught.value)


def test_a_live_run_and_a_live_sweep_stay(storage: Path) -> None:
    living = {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time()}
    start(make_run(storage / "two"), **living)  # pyright: ignore[reportArgumentType]
    assert refusal(storage, "two") == "two: a process is at work on it; end that first"
    trial = make_run(storage / "sweep-one" / "trials" / "1")
    start(trial, **living)  # pyright: ignore[reportArgumentType]
    assert "a process is at work on it" in refusal(storage, "sweep-one")


def test_a_run_that_was_started_after_the_question_stays(storage: Path) -> None:
    (removal,) = plan_removal(["one"], storage)
    start(storage / "one", host=socket.gethostname(), pid=os.getpid(), at=time.time())
    end(storage / "one", None)
    with pytest.raises(ConfigError, match="a process is at work on it"):
        remove_run(removal)
    assert (storage / "one" / "config.yaml").is_file()


def test_a_trial_and_a_checkpoint_are_no_whole(storage: Path) -> None:
    assert "is a trial, which its sweep reads" in refusal(storage, "sweep-one/0")
    assert "is one checkpoint" in refusal(storage, "one/checkpoints/step-00000004")


def test_a_sweep_without_an_end_stays_and_so_does_the_run_it_starts_from(storage: Path) -> None:
    base = CONFIG.replace("segmentor: null", f"segmentor: {storage / 'one'}")
    sweep = make_sweep(storage / "sweep-two", [result_row(0, 1.0, 1.0)], base=base)
    end(sweep, "KILLED")
    grow_old(storage)
    assert "has trials without an end" in refusal(storage, "sweep-two")
    assert refusal(storage, "one").startswith("one: sweep-two reads from ")
    end(sweep, "FINISHED")
    # More trials may be asked of it.
    assert "remove it first: spikeseg runs remove sweep-two" in refusal(storage, "one")
    (storage / "link").symlink_to(storage)
    assert "reads from" in refusal(storage / "link", "one")
    for removal in plan_removal(["one", "sweep-two"], storage):
        remove_run(removal)
    assert not (storage / "one").exists() and not sweep.exists()


def test_a_folder_without_a_configuration_holds_nothing_up(storage: Path) -> None:
    (storage / "begun" / "checkpoints").mkdir(parents=True)
    assert plan_removal(["one"], storage)


def test_a_run_that_a_live_run_started_from_stays(storage: Path) -> None:
    config = CONFIG.replace("segmentor: null", f"segmentor: {storage / 'one'}/checkpoints/x")
    run = make_run(storage / "two", config=config)
    start(run, host=socket.gethostname(), pid=os.getpid(), at=time.time())
    assert refusal(storage, "one").startswith("one: two reads from ")
    make_run(storage / "on")
    grow_old(storage / "on")
    assert plan_removal(["on"], storage), "a name that begins like another is another"
