"""Paths that are typed as options are resolved where they were typed, and shown as resolved."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from spikeseg.jobs.options import TypedPath


@click.command()
@click.option("--output", type=TypedPath(dir_okay=False))
def echo(output: Path | None) -> None:
    print(output)


def type_path(word: str) -> tuple[int, str]:
    done = CliRunner().invoke(echo, [f"--output={word}"])
    return done.exit_code, done.output.strip()


def test_home_variables_and_relative_names_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    assert type_path("~/a.html") == (0, str(tmp_path / "home/a.html"))
    assert type_path("$PLACE/a.html") == (0, str(tmp_path / "scratch/a.html"))
    assert type_path("b/a?%23.html") == (0, str(tmp_path / "b/a?%23.html"))


def test_a_name_that_exists_as_it_is_typed_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$HOME").mkdir()
    (tmp_path / "$HOME" / "a.html").touch()
    assert type_path("$HOME/a.html") == (0, str(tmp_path / "$HOME" / "a.html"))


def test_a_variable_that_is_not_set_and_a_folder_for_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET_AT_ALL", raising=False)
    code, said = type_path("$NOT_SET_AT_ALL/a.html")
    assert code == 2 and "the variable $NOT_SET_AT_ALL is not set here" in said
    code, said = type_path(str(tmp_path))
    assert code == 2 and "is a directory" in said


def test_nothing_typed_is_nothing() -> None:
    assert CliRunner().invoke(echo, []).output.strip() == "None"
