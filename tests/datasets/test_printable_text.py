"""Text of others never makes a terminal do something."""

import pickle
from pathlib import Path

import pytest
from raw_layouts import LAYOUTS, packed

from spikeseg.datasets.printable_text import is_printable, make_printable
from spikeseg.datasets.spec import DataError, LabelSpace, load_label_space
from spikeseg.jobs import cli


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jroad", r"\x1b[2Jroad"),
        ("a\rb\x08\x07\x7f", r"a\x0db\x08\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udc80", r"\udc80"),
        ("\U000e0041", r"\U000e0041"),
        ("line\u2028line", r"line\u2028line"),
        ("two\nlines\tand Ümläute 道路", "two\nlines\tand Ümläute 道路"),
    ],
    ids=ascii,
)
def test_what_a_terminal_obeys_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert make_printable(text) == shown
    assert make_printable(shown) == shown


def test_names_have_no_line_breaks() -> None:
    assert is_printable("traffic light (紅緑燈)")
    assert not is_printable("road\nsky")
    assert not is_printable("\x1b]0;title\x07")


def test_errors_are_printable_and_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(DataError("row \x1b[31m: damaged")))
    assert str(error) == r"row \x1b[31m: damaged"


def test_a_class_name_with_an_escape_is_refused() -> None:
    content = load_label_space("camvid").to_json()
    content["classes"][2] = "\x1b[2JPole"
    with pytest.raises(DataError, match=r"name .*x1b.* must be printable text"):
        LabelSpace.from_json(content)


def test_the_id_of_a_bad_row_reaches_no_terminal_raw(tmp_path: Path) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    listing = layout.source / "train.txt"
    listing.write_text(listing.read_text() + "\x1b[2Jc1\n")
    with pytest.raises(DataError, match=r"\\x1b\[2Jc1") as caught:
        packed(layout, tmp_path / "packed")
    assert "\x1b" not in str(caught.value)


def test_the_command_prints_no_error_raw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ValueError("bad \x1b]0;owned\x07 value")

    monkeypatch.delenv("SPIKESEG_TRACEBACK", raising=False)
    monkeypatch.setattr(cli.root, "main", failing)
    with pytest.raises(SystemExit):
        cli.run(cli.root, ["doctor"])
    assert capsys.readouterr().err == "spikeseg: bad \\x1b]0;owned\\x07 value\n"
