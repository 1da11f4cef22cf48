"""A sweep's name is one folder of the storage; any other is refused before anything is written."""

import json
import shutil
import time
from pathlib import Path

import pytest
from toy_sweep import listed, run_toys, toy_plan

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.run_names import make_folder
from spikeseg.platform.search import sweep as sweep_loop
from spikeseg.platform.search.sweep import SweepUnfinishedError
from spikeseg.platform.search.sweep_folder import with_stored_defaults

NAMES = ["../x", "/tmp/x", "a/b", "..", "a\0b", "a\nb", "\x1b[31mx", "<b>x</b>", "x" * 300]


@pytest.fixture(autouse=True)
def starts_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of models take seconds; other tests look at them."""
    monkeypatch.setattr(sweep_loop, "check_trials", lambda plan: None)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("option", ["name", "resume"])
def test_a_path_or_markup_is_no_name_of_a_sweep(
    tmp_path: Path, data: Path, option: str, name: str
) -> None:
    storage = tmp_path / "inner" / "runs"
    toy_plan(storage, **listed(4))
    # One that could be continued lies beside the storage.
    (tmp_path / "inner" / "x").mkdir()
    (tmp_path / "inner" / "x" / "plan.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="a name has at most 240 bytes") as caught:
        run_toys(data, storage, **{option: name})
    assert str(caught.value).isprintable()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_that_leads_out_of_the_storage_is_not_continued(tmp_path: Path, data: Path) -> None:
    storage, other = tmp_path / "runs", tmp_path / "other"
    toy_plan(storage, **listed(4))
    other.mkdir()
    (other / "plan.json").write_text("{}")
    (storage / "toy").symlink_to(other)
    with pytest.raises(ConfigError, match="lies outside of the storage"):
        run_toys(data, storage, resume="toy")
    assert [path.name for path in other.iterdir()] == ["plan.json"]


@pytest.mark.slow
def test_two_sweeps_of_one_second_have_names_of_their_own(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")
    toy_plan(tmp_path, **listed(4))
    names = [run_toys(data, tmp_path).name for _ in range(3)]
    first = "sweep-toy-20260101-000000"
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    made = [make_folder(tmp_path / "runs", "r-1").name for _ in range(3)]
    assert made == ["r-1", "r-1-2", "r-1-3"]


def stopped(line: str) -> None:
    if line.startswith("trial"):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_sweep_goes_on_with_the_same_data_elsewhere(tmp_path: Path, data: Path) -> None:
    toy_plan(tmp_path, **listed(4, 2))
    before, after = tmp_path / "A", tmp_path / "B"
    shutil.copytree(data, before)
    with pytest.raises(SweepUnfinishedError):
        run_toys(before, tmp_path, stopped, name="toy")
    before.rename(after)
    assert run_toys(after, tmp_path, resume="toy").counts == {"COMPLETE": 2}
    # Once more, from the plan that has the new place.
    assert run_toys(after, tmp_path, resume="toy").counts == {"COMPLETE": 2}


@pytest.mark.parametrize(
    "known",
    [True, pytest.param(False, marks=pytest.mark.slow)],
    ids=["recorded", "of an earlier version"],
)
def test_other_data_is_no_moved_data(tmp_path: Path, data: Path, known: bool) -> None:
    toy_plan(tmp_path, **listed(4, 2))
    with pytest.raises(SweepUnfinishedError):
        run_toys(data, tmp_path, stopped, name="toy")
    if not known:
        plan = json.loads((tmp_path / "toy" / "plan.json").read_text())
        del plan["data_digest"]
        (tmp_path / "toy" / "plan.json").write_text(json.dumps(plan))
        copy = tmp_path / "copy"
        shutil.copytree(data, copy)
        assert run_toys(copy, tmp_path, resume="toy").counts == {"COMPLETE": 2}
        return
    other = tmp_path / "other"
    options = ShapesOptions(size=(32, 32), train=8, val=3, test=3, seed=2)
    pack("shapes", Shapes(options), Path(), other, progress=lambda done, total: None)
    with pytest.raises(ConfigError, match=r"base experiment .* differs .* data.path was"):
        run_toys(other, tmp_path, resume="toy")


def test_a_sweep_of_an_earlier_version_goes_on_with_the_rungs_it_had(
    tmp_path: Path, data: Path
) -> None:
    changes = {"pruner": {"rule": "non_dominated", "grace": 2}}
    toy_plan(tmp_path, **listed(1, 2), **changes)
    run_toys(data, tmp_path, name="toy")
    file = tmp_path / "toy" / "plan.json"
    content = json.loads(file.read_text())
    assert content["recipe"]["pruner"].pop("grace") == 2
    file.write_text(json.dumps(content))
    assert run_toys(data, tmp_path, resume="toy").counts
    assert "grace" not in json.loads(file.read_text())["recipe"]["pruner"]
    assert with_stored_defaults("toy", tmp_path, []) == ["sweep.pruner.grace=1"]
    toy_plan(tmp_path, **listed(1), **changes)
    run_toys(data, tmp_path, name="new")
    assert with_stored_defaults("new", tmp_path, ["a=1"]) == ["a=1"]
