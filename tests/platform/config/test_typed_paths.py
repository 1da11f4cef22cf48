"""Names that people type mean one place, whatever characters they have and whoever reads them."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.recipes import load_experiment, parse_overrides
from spikeseg.platform.config.storage import default_storage
from spikeseg.platform.config.typed_paths import (
    resolve_address,
    resolve_path,
    sqlite_address,
    sqlite_file,
)

AWKWARD = ["quest?ion", "per%3Fcent", "a%20b", "ha#sh", "sp ace", "a:b@c", "plus+", "ümlaut"]


@pytest.mark.parametrize("name", AWKWARD)
def test_a_databases_address_leads_to_its_own_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    file = tmp_path / name / "mlflow.db"
    address = sqlite_address(file)
    with sqlalchemy.create_engine(address).connect() as connection:
        connection.execute(sqlalchemy.text("create table found (a int)"))
    with sqlite3.connect(file) as opened:
        assert opened.execute("select name from sqlite_master").fetchall() == [("found",)]
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing beside it was made"
    assert sqlite_file(address) == file
    assert resolve_address(address) == address


def test_ordinary_addresses_are_as_they_always_were() -> None:
    assert sqlite_address(Path("/runs/a-b_c.d/mlflow.db")) == "sqlite:////runs/a-b_c.d/mlflow.db"
    assert sqlite_file("sqlite:///mlflow.db") == Path("mlflow.db")
    for other in ("http://h/?a=b", "postgresql://h/d", "sqlite:///:memory:", "nonsense"):
        assert sqlite_file(other) is None
        assert resolve_address(other) == other


@pytest.mark.parametrize(
    ("typed", "resolved"),
    [
        ("sqlite:///tracking.db", "sqlite:///{here}/tracking.db"),
        ("sqlite:///a/../tracking.db?timeout=5", "sqlite:///{here}/a/../tracking.db?timeout=5"),
        ("sqlite+pysqlite:///$STORE/t.db", "sqlite+pysqlite:///{here}/s/t.db"),
        ("sqlite:///~/t.db", "sqlite:///{here}/home/t.db"),
    ],
)
def test_a_typed_address_is_that_of_the_folder_it_was_typed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, resolved: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORE", f"{tmp_path}/s")
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    assert resolve_address(typed) == resolved.format(here=tmp_path)


def test_a_name_that_exists_is_taken_as_it_is_and_others_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    monkeypatch.setenv("WHERE", "w")
    assert resolve_path("~/runs") == tmp_path / "home/runs"
    assert resolve_path("a/${WHERE}/$WHERE") == tmp_path / "a/w/w"
    (tmp_path / "$WHERE").mkdir()
    (tmp_path / "~").mkdir()
    assert resolve_path("$WHERE") == tmp_path / "$WHERE"
    assert resolve_path("~") == tmp_path / "~"
    with pytest.raises(ValueError, match=r"^a/\$MISSING/b: the variable \$MISSING is not set here"):
        resolve_path("a/$MISSING/b")


def test_the_storage_is_resolved_where_its_variable_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKESEG_STORAGE", "my runs")
    assert default_storage() == tmp_path / "my runs"
    monkeypatch.setenv("SPIKESEG_STORAGE", "$NOWHERE_AT_ALL/runs")
    with pytest.raises(ValueError, match=r"SPIKESEG_STORAGE: .*\$NOWHERE_AT_ALL is not set"):
        default_storage()


@pytest.mark.parametrize("typed", ["a #1", "%20", "?b: c", "[x]", "123"])
def test_an_overrides_path_is_what_was_typed_and_no_yaml(typed: str) -> None:
    assert parse_overrides([f"data.path={typed}"]) == {"data.path": typed}


def test_an_overrides_path_may_be_quoted_or_null() -> None:
    parsed = parse_overrides(['data.path="a b"', "init.backbone=null", "init.segmentor=~"])
    assert parsed == {"data.path": "a b", "init.backbone": None, "init.segmentor": None}


def test_paths_of_an_experiment_are_filled_in_and_named_where_they_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    items = ["data.path=~/my data", "tracking.journal=fast", "init.segmentor=~/w"]
    config = load_experiment("shapes_tiny", items).config
    assert config.data.path == f"{tmp_path}/my data"
    assert config.tracking.journal == f"{tmp_path}/fast"
    assert config.init.segmentor == f"{tmp_path}/w"
    with pytest.raises(ConfigError, match=r"command line: data.path: \$NOT_SET/x: the variable"):
        load_experiment("shapes_tiny", ["data.path=$NOT_SET/x"])
