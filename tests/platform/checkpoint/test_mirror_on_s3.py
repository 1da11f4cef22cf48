"""A training that reads from an object store, is mirrored to it, and comes back from it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_store import Bucket, open_bucket
from tiny import experiment

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.platform.config.recipes import ConfigError, Resolved
from spikeseg.platform.config.run_names import split_mirrored
from spikeseg.platform.runs.find_run import find_run_to_resume
from spikeseg.platform.train.trainer import TrainingFailedError, resume_training, train


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with open_bucket() as opened:
        yield opened


def by_options(bucket: Bucket, patch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Addresses that name the server."""
    del patch
    return bucket.uri


def by_variables(bucket: Bucket, patch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Addresses as on the store of a provider; the variables name the server."""
    for key, value in bucket.variables().items():
        patch.setenv(key, value)
    return lambda path: f"s3://sets/{path}"


@pytest.mark.slow
@pytest.mark.parametrize("named", [by_options, by_variables])
def test_a_training_comes_back_from_the_store_on_another_machine(
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: Callable[[Bucket, pytest.MonkeyPatch], Callable[[str], str]],
) -> None:
    address = named(bucket, monkeypatch)
    data, runs = address(f"{named.__name__}/data"), address(f"{named.__name__}/runs")
    shapes = Shapes(ShapesOptions(size=(32, 32), train=11, val=5, test=2, objects=(1, 2)))
    pack("shapes", shapes, Path(), data, workers=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("spikeseg.platform.train.tracked_training._SEND_SECONDS", 0.1)
    small = {"max_steps": 4, "micro_batches": 1, "evaluate_every": 1, "test": False}
    config = experiment(data, decoder="fpn", mirror=runs, **small)  # pyright: ignore[reportArgumentType]

    def lose_the_machine(line: str) -> None:
        if line.startswith("step 4"):
            raise OSError("the machine is gone")

    with pytest.raises(TrainingFailedError, match="the machine is gone"):
        train(Resolved(config, {}), storage=tmp_path / "a", name="run", progress=lose_the_machine)
    shutil.rmtree(tmp_path / "a")
    lines: list[str] = []
    word, storage = find_run_to_resume(
        address(f"{named.__name__}/runs/run"), tmp_path / "b", kind="run"
    )
    outcome = resume_training(word, storage=storage, progress=lines.append)
    assert outcome.folder == tmp_path / "b" / "run"
    assert outcome.mirror_lacks is None
    (line,) = [line for line in lines if "resumed at step" in line]
    assert 1 <= int(line.rpartition(" ")[2]) <= 3


@pytest.mark.parametrize(
    ("address", "mirror", "name"),
    [
        ("s3://bucket/runs/NAME", "s3://bucket/runs", "NAME"),
        ("s3://bucket/runs/NAME/", "s3://bucket/runs", "NAME"),
        ("s3://b/r/N?scheme=http&region=a/b", "s3://b/r?scheme=http&region=a/b", "N"),
        ("file:///far/runs/N+1", "file:///far/runs", "N+1"),
    ],
)
def test_an_address_is_the_mirrors_and_the_runs_name(address: str, mirror: str, name: str) -> None:
    assert split_mirrored(address) == (mirror, name)


def test_a_run_that_the_store_lacks_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--resume absent: sets/runs/absent: no run is kept"):
        resume_training(bucket.uri("runs/absent"), storage=tmp_path)
    assert not (tmp_path / "absent").exists()
