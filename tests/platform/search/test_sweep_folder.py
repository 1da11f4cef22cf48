"""A sweep's name is one folder of the storage; any other is refused before anything is written."""

from pathlib import Path

import pytest
from toy_sweep import listed, run_toys, toy_plan

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.search import sweep as sweep_loop

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
