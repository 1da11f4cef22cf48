"""What a run may be called, and that what is written lies in the storage."""

from pathlib import Path

import pytest

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.run_names import check_run_name, check_word, require_inside, shown

ESCAPE = "\x1b[31mred\x1b[0m"
NO_NAMES = {
    "empty": "",
    "dot": ".",
    "parent": "..",
    "below": "a/b",
    "above": "../x",
    "absolute": "/etc",
    "backslash": "a\\b",
    "address": "file:///tmp/x",
    "hidden": ".x",
    "option": "-x",
    "zero byte": "a\0b",
    "line": "a\nb",
    "trailing line": "a\n",
    "escape": ESCAPE,
    "markup": "<script>alert(1)</script>",
    "quote": "a'b",
    "console markup": "[red]a",
    "direction": "a\u202eb",
    "encoded": "a%2F..",
    "shell": "a;b $(c)",
    "long": "a" * 300,
    "long in bytes": "ä" * 150,
    "trailing dot": "a.",
    "surrogate": "a\udcff",
}


@pytest.mark.parametrize("name", NO_NAMES.values(), ids=NO_NAMES.keys())
def test_what_is_no_name_is_refused_on_one_plain_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_run_name(name, "--resume")
    text = str(caught.value)
    assert (
        text.startswith(("--resume: got '", '--resume: got "'))
        and "a name has at most 240 bytes" in text
    )
    assert text.isprintable() and len(text) < 300


@pytest.mark.parametrize(
    "name",
    ["camvid_tiny-20261125-063940-ee522d", "sweep-toy", "x", "_x", "Größe 2", "a.b+c=1", "7"],
)
def test_names_of_people_and_of_recipes_stay_as_they_are(name: str) -> None:
    assert check_run_name(name, "--resume") == name


@pytest.mark.parametrize("word", ["runs/a", "../a", "sweep/best", "/x/y", "a b", "ü", ""])
def test_a_word_may_be_a_path(word: str) -> None:
    assert check_word(word) == word


@pytest.mark.parametrize("word", [ESCAPE, "a\nb", "a\0", "x/" + "a" * 256, "\udcff"])
def test_a_word_that_cannot_be_looked_up_or_shown_is_refused(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_word(word)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_what_lies_outside_is_named_with_its_own_storage(tmp_path: Path) -> None:
    storage, other = tmp_path / "runs", tmp_path / "other" / "x"
    storage.mkdir()
    other.mkdir(parents=True)
    require_inside(storage / "a", storage, "--resume a")
    require_inside(storage / "sweep" / "trials" / "0", storage, "--resume a")
    (storage / "link").symlink_to(other)
    for folder in (other, storage / ".." / "other" / "x", storage / "link", storage.parent):
        with pytest.raises(ConfigError, match=r"--resume a: .* lies outside of the storage"):
            require_inside(folder, storage, "--resume a")
    with pytest.raises(ConfigError, match=f"--storage {other.parent}$"):
        require_inside(other, storage, "--resume a")
    # A storage that is itself a link is one all the same.
    (tmp_path / "short").symlink_to(storage)
    require_inside(tmp_path / "short" / "a", tmp_path / "short", "--resume a")


def test_text_is_shown_quoted_and_cut() -> None:
    assert shown("a") == "'a'"
    assert shown(ESCAPE) == "'\\x1b[31mred\\x1b[0m'"
    assert shown("b" * 1000).endswith("… (1000 characters)") and len(shown("b" * 1000)) < 90
