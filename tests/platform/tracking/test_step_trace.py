"""A profile of some steps: which ones, what it holds, that no weight changes, its way to MLflow."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import spikeseg
from mlflow import MlflowClient
from recorded_training import files, training
from tiny import experiment, pack_shapes

from spikeseg.platform.config.recipes import Resolved
from spikeseg.platform.tracking import step_trace
from spikeseg.platform.tracking.step_trace import StepTrace, TracedSteps, list_traces, parse_steps
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.train.trainer import TrainOutcome, resume_training, train

SMALL = {
    **{"max_steps": 4, "micro_batches": 2, "evaluate_every": 4, "test": False},
    **{"checkpoint_every": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.mark.parametrize("flag", ["--profile-steps=9-1", "--profile-steps=all"])
def test_the_command_refuses_what_is_no_range(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: str
) -> None:
    ran = spikeseg(capsys, "train", "shapes_tiny", flag, "--storage", str(tmp_path / "runs"))
    assert ran.code == 2
    assert f"{flag.replace('=', ' ')}: must be FIRST-LAST" in ran.err
    assert not (tmp_path / "runs").exists()


class Recorded:
    """Stands for a journal."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def artifact(self, path: str, source: Path) -> None:
        self.paths.append(path)


def run_tiny(data: Path, storage: Path, **options: Any) -> TrainOutcome:
    config = experiment(data, decoder="fpn", **SMALL, **options.pop("trainer", {}))
    return train(Resolved(config, {}), storage=storage, name="run", **options)


def names_in(trace: Path) -> set[str]:
    return {
        event["name"] for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    }


@pytest.mark.parametrize(
    ("text", "steps"), [("5", (5, 1)), ("1-10", (1, 10)), ("101-103", (101, 3))]
)
def test_steps_are_read(text: str, steps: tuple[int, int]) -> None:
    assert parse_steps(text, "--profile-steps") == steps


@pytest.mark.parametrize("text", ["", "0", "5-3", "1-11", "a-b", "3-", "-3", "1-2-3", "1.5", "٣"])
def test_what_is_no_range_of_steps_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--profile-steps .*: must be FIRST-LAST"):
        parse_steps(text, "--profile-steps")


@pytest.mark.parametrize(
    ("steps", "done", "most", "traced"),
    [
        (TracedSteps(), 0, 100, (3, 4)),
        (TracedSteps(), 50, 100, (53, 54)),
        (TracedSteps(), 0, 3, (2, 3)),
        (TracedSteps(), 99, 100, (100, 100)),
        (TracedSteps(), 0, 1, (1, 1)),
        (TracedSteps(98, 5), 0, 100, (98, 100)),
    ],
)
def test_the_steps_lie_within_the_training(
    steps: TracedSteps, done: int, most: int, traced: tuple[int, int]
) -> None:
    assert steps.resolve(done, most) == traced


def test_a_profile_changes_no_weight(data: Path, tmp_path: Path) -> None:
    config = experiment(data, decoder="fpn", **SMALL)
    plain, _ = training(config, tmp_path / "plain")
    traced, _ = training(config, tmp_path / "traced")
    trace = StepTrace((2, 2), tmp_path, Recorded(), print)  # pyright: ignore[reportArgumentType]
    traced.around_step = trace.around
    for made in (plain, traced):
        assert [item.step for item in made.evaluations()] == [4]
    assert files(tmp_path / "traced", 4) == files(tmp_path / "plain", 4)
    assert len(list_traces(tmp_path)) == 1


@pytest.mark.slow
def test_a_profile_is_an_artifact_of_the_run(data: Path, storage: Path) -> None:
    lines: list[str] = []
    traced = run_tiny(data, storage, profile=TracedSteps(2, 2), progress=lines.append)

    (trace,) = list_traces(traced.folder)
    assert trace.name == "steps-2-3.json.gz"
    names = names_in(trace)
    assert {"step 2", "step 3", "forward and loss", "backward", "update"} <= names
    assert not {"step 1", "step 4"} & names, "the step before warms the profiler up"
    assert "step 3" in trace.with_name("steps-2-3.txt").read_text()
    assert any("steps 2 to 3 will be profiled" in line for line in lines)
    assert any(f"{trace} (" in line and "https://ui.perfetto.dev" in line for line in lines)

    client = MlflowClient(tracking_uri(storage))
    (found,) = client.search_runs([client.search_experiments()[0].experiment_id])
    listed = client.list_artifacts(found.info.run_id, "profile")
    assert {item.path for item in listed} == {
        "profile/steps-2-3.json.gz",
        "profile/steps-2-3.txt",
    }
    assert {item.path: item.file_size for item in listed}["profile/steps-2-3.json.gz"] == (
        trace.stat().st_size
    )


def stop_at(step: int) -> Callable[[str], None]:
    def progress(line: str) -> None:
        if line.startswith(f"step {step}/"):
            raise RuntimeError("the machine is lost")

    return progress


@pytest.mark.slow
def test_a_training_that_ends_early_leaves_the_steps_that_it_did(data: Path, storage: Path) -> None:
    with pytest.raises(RuntimeError, match="the machine is lost"):
        run_tiny(
            *(data, storage),
            profile=TracedSteps(1, 4),
            progress=stop_at(3),
            trainer={"log_every": 1},
        )
    (trace,) = list_traces(storage / "run")
    assert trace.name == "steps-1-3.json.gz"
    # Steps that were done before are no more: it says so, and the training goes on.
    lines: list[str] = []
    resume_training("run", storage=storage, profile=TracedSteps(1, 1), progress=lines.append)
    assert any("no profile: of steps 1 to 1 none is left, 2 were done" in line for line in lines)
    assert list_traces(storage / "run") == [trace]


def test_steps_beyond_the_training_are_refused_and_nothing_is_left(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"profile of step 5: the training has 4 steps"):
        run_tiny(data, tmp_path, profile=TracedSteps(5, 1))
    assert not (tmp_path / "run").exists()


def test_a_step_done_again_after_a_rollback_is_one_of_the_range(tmp_path: Path) -> None:
    journal = Recorded()
    lines: list[str] = []
    trace = StepTrace((2, 4), tmp_path, journal, lines.append)  # pyright: ignore[reportArgumentType]
    for done in (0, 1, 2, 1, 2, 3, 4):
        with trace.around(done):
            pass
    assert journal.paths == ["profile/steps-2-3.json.gz", "profile/steps-2-3.txt"]
    trace.close()
    assert len(journal.paths) == 2


def test_a_profile_that_cannot_be_written_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step_trace, "write_file", refuse)
    lines: list[str] = []
    trace = StepTrace((1, 1), tmp_path, Recorded(), lines.append)  # pyright: ignore[reportArgumentType]
    with trace.around(0):
        pass
    assert lines == ["the profile could not be written: [Errno 28] No space left on device"]
