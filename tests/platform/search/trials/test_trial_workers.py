"""Trials that train: several Ray Train workers a trial, warm processes that repeat themselves."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table
from toy_sweep import UP, listed, toy_plan

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.cluster.session import connected
from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.search.sweep import SweepOptions, SweepOutcome, sweep
from spikeseg.platform.search.trials.trial_workers import free_orphans

TINY = [
    "trainer.max_steps=2",
    "trainer.evaluate_every=1",
    "trainer.micro_batch_size=2",
    "trainer.micro_batches=2",
    "data.transform.crop=[32, 32]",
    "trainer.energy_images=1",
    "tracking.images=0",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed data set of a few generated images."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    options = ShapesOptions(size=(32, 32), train=8, val=3, test=3, seed=1)
    pack("shapes", Shapes(options), Path(), folder, progress=lambda done, total: None)
    return folder


def run_sweep(
    data: Path,
    storage: Path,
    *,
    here: bool = False,
    workers: int = 1,
    overrides: Sequence[str] = (),
    **changes: Any,
) -> SweepOutcome:
    """A sweep of three small trainings: two equal ones, and one in which a level more is used.

    The first two differ in the checkpoints that are kept, which changes nothing that is trained.
    """
    plan = listed(2, 2, 3, overrides=[*TINY, *overrides], workers_per_trial=workers, **changes)
    plan["space"]["trainer.keep_checkpoints"] = {"choices": [1, 2]}
    for point, kept in zip(plan["first"], (1, 2, 1), strict=True):
        point["trainer.keep_checkpoints"] = kept
    storage.mkdir(parents=True, exist_ok=True)
    toy_plan(storage, **plan)
    return sweep(
        str(storage / "toy.yaml"),
        [f"data.path={data}"],
        SweepOptions(storage=storage, name="toy", here=here),
        progress=lambda line: None,
    )


def tensors(outcome: SweepOutcome, number: int) -> dict[str, bytes]:
    newest = RunFolder(outcome.folder / "trials" / str(number)).newest()
    assert newest is not None
    return {k: v.numpy().tobytes() for k, v in newest.tensors("model").items()}


@pytest.mark.slow
def test_a_trial_leaves_nothing_behind_for_the_next_one_in_its_process(
    tmp_path: Path, data: Path
) -> None:
    outcome = run_sweep(data, tmp_path, here=True)
    assert outcome.counts == {"COMPLETE": 3}
    assert tensors(outcome, 0) == tensors(outcome, 1)
    assert tensors(outcome, 0) != tensors(outcome, 2)


def test_several_workers_a_trial_need_ray(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="workers_per_trial: more than 1 needs Ray"):
        run_sweep(data, tmp_path, here=True, workers=2)


@pytest.mark.ray
@pytest.mark.slow
def test_a_warm_process_of_tune_trains_as_this_one_does(tmp_path: Path, data: Path) -> None:
    here = run_sweep(data, tmp_path / "here", here=True)
    there = run_sweep(data, tmp_path / "there")
    for number in range(3):
        assert tensors(there, number) == tensors(here, number)


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_a_trial_train_through_ray_train(tmp_path: Path, data: Path) -> None:
    outcome = run_sweep(data, tmp_path, workers=2)
    assert outcome.counts == {"COMPLETE": 3}
    newest = RunFolder(outcome.folder / "trials" / "0").newest()
    assert newest is not None
    assert newest.state["environment"]["workers"] == 2
    rows = json.loads((outcome.folder / "results.json").read_text())
    assert all(row["step"] == 2 for row in rows)


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_of_two_workers_that_fails_for_good_is_not_tried_again_and_says_why(
    tmp_path: Path, data: Path
) -> None:
    hot = ["optimizer.lr=1e30", "optimizer.warmup_steps=0", "trainer.evaluate_every=2"]
    outcome = run_sweep(data, tmp_path, workers=2, overrides=hot)
    assert outcome.counts == {"FAIL": 3}
    for number in range(3):
        trial = outcome.folder / "trials" / str(number)
        reason = json.loads((trial / "verdict.json").read_text())["reason"]
        assert reason.startswith("not finite: step 1: loss terms")
        assert len(list((trial / "attempts").iterdir())) == 1
        assert not list(trial.glob("failure-*")) and not list(trial.glob("reports-*"))


@pytest.mark.ray
def test_places_are_freed_when_their_makers_are_dead_and_no_others() -> None:
    """One that is freed before its controller is dead is taken again, by workers nobody needs."""

    class Maker:
        def make(self) -> str:
            group = placement_group([{"CPU": 0.5}])
            assert group.wait(60)
            return group.id.hex()

    with connected(cpus=2):
        actor: Any = ray.remote(Maker)
        makers = [actor.options(num_cpus=0).remote() for _ in range(2)]
        dead, alive = ray.get([maker.make.remote() for maker in makers])
        own = placement_group([{"CPU": 0.5}])
        assert own.wait(60)
        assert free_orphans() == 0
        ray.kill(makers[0])
        end = time.monotonic() + 60
        while not free_orphans():
            assert time.monotonic() < end, "its place is still there"
            time.sleep(0.1)
        states = {name: row["state"] for name, row in placement_group_table().items()}
        assert states.get(dead, "REMOVED") == "REMOVED"
        assert (states[alive], states[own.id.hex()]) == ("CREATED", "CREATED")
        assert free_orphans() == 0


@pytest.mark.ray
@pytest.mark.slow
def test_the_place_of_workers_that_are_stopped_early_is_given_back(
    tmp_path: Path, data: Path
) -> None:
    limit = {"metric": "energy/mJ", "at_most": 0.0, "after": 1}
    stopping = {"rule": "halving", "minimum": 2, "limits": [limit]}
    outcome = run_sweep(data, tmp_path, workers=2, objectives=[UP], pruner=stopping)
    assert outcome.counts == {"PRUNED": 3}
