"""Files that an earlier process wrote are read, or refused with file and key."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.stored_json import check_stored, read_stored


class Plan(BaseModel):
    """A file with two keys."""

    trials: int
    parts: dict[str, list[float]]


def test_what_fits_is_read_and_further_keys_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"trials": 3, "parts": {"a": [1, 2.5]}, "later": null}')
    assert read_stored(file, Plan) == Plan(trials=3, parts={"a": [1.0, 2.5]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"trials": ', "is damaged"),
        ("[1]", "got"),
        ('{"trials": 3}', "parts: Field required"),
        ('{"trials": "3", "parts": {}}', "trials: got '3'"),
        ('{"trials": 3, "parts": {"a": [1, "<b>\\u001b[31m"]}}', "parts.a.1: got '<b>\\x1b[31m'"),
        ("[" * 100_000, "is damaged"),
        ("\x00\x01", "is damaged"),
    ],
    ids=["cut", "list", "missing", "text", "escape", "deep", "binary"],
)
def test_what_does_not_fit_is_refused_with_file_and_key(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_stored(file, Plan)
    text = str(caught.value)
    assert text.startswith(f"{file}: {message}") and text.isprintable() and len(text) < 400


def test_a_file_that_is_gone_or_a_folder_is_named(tmp_path: Path) -> None:
    for file in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(ConfigError, match=f"^{file}: cannot be read"):
            read_stored(file, Plan)


def test_a_value_is_checked_where_it_stands() -> None:
    assert check_stored(1.5, float, "row 2: mIoU") == 1.5
    with pytest.raises(ConfigError, match=r"^row 2: mIoU: got 'x': "):
        check_stored("x", float, "row 2: mIoU")
    with pytest.raises(ConfigError, match=r"^row 2: trial: got 'True': "):
        check_stored(True, int, "row 2: trial")
