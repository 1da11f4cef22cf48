"""`classes.yaml`: what it may say, what it is refused for, and masks mapped by it."""

from pathlib import Path

import numpy as np
import pytest

from spikeseg.datasets.layouts.image_folder.class_file import read_class_file, write_class_file
from spikeseg.datasets.layouts.image_folder.class_table import map_mask
from spikeseg.datasets.layouts.image_folder.decode import Mask
from spikeseg.datasets.spec import DataError

WHERE = Path("/data/classes.yaml")
COLOURS = """
name: garden
classes:
- {name: ground, colour: "#000000"}
- {name: no, colour: [[255, 0, 0], [250, 128, 0]], palette: "#00ff00"}
ignore: ["#ffffff"]
tolerance: 3
"""


def test_a_class_file_is_read_with_colours_numbers_and_words() -> None:
    table = read_class_file(COLOURS.encode(), WHERE)
    space = table.label_space()
    # YAML 1.2: `no` is a word.
    assert (space.name, space.classes) == ("garden", ("ground", "no"))
    assert space.palette == ((0, 0, 0), (0, 255, 0))
    assert table.code_ids() == {0: 0, 0xFF0000: 1, 0xFA8000: 1, 0xFFFFFF: 255}
    assert table.describe() == {
        "ground": ["#000000"], "no": ["#ff0000", "#fa8000"], "(ignored)": ["#ffffff"],
    }  # fmt: skip
    # Raw values of a label space are numbers of 16 bits.
    assert space.raw_to_train == {0: 0, 1: 1, 255: 255}
    values = read_class_file(b"classes: [{name: a, value: [0, 3]}, {name: b, value: -1}]", WHERE)
    assert values.code_ids() == {0: 0, 3: 0, -1: 1}
    assert values.label_space().raw_to_train == {0: 0, 1: 1, 255: 255}
    few = read_class_file(b"classes: [{name: a, value: [0, 300]}]\nignore: [255]", WHERE)
    assert few.label_space().raw_to_train == {0: 0, 300: 0, 255: 255}
    words = read_class_file(b"classes: [{name: a, label: [x, y]}, {name: b}]\nignore: [z]", WHERE)
    assert words.label_ids() == {"x": 0, "y": 0, "b": 1, "z": 255}


@pytest.mark.parametrize(
    "text",
    [COLOURS, "classes: [{name: 'a: b', value: [0, 7]}, {name: 'ü \"', value: 2}]\nignore: [255]",
     "classes: [{name: a, label: [x, y]}, {name: rest, label: r}]\nbackground: rest"],
    ids=["colours", "values", "labels"],
)  # fmt: skip
def test_a_written_class_file_is_read_back_equal(text: str) -> None:
    table = read_class_file(text.encode(), WHERE)
    again = write_class_file(table, ["remark"] * len(table.classes))
    assert read_class_file(again.encode(), WHERE) == table


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("classes: []", "classes must be a list"),
        ("classes: [{nme: a, value: 1}]", r"classes\[0\]: no key 'nme'; did you mean name"),
        ("clases: [{name: a, value: 1}]", "no key 'clases'; did you mean classes"),
        ("classes: [{name: a, value: 1}, {name: b}]", r"classes\[1\] has no value"),
        ("classes: [{name: a, value: 1}, {name: b, colour: '#000000'}]", "value and colour"),
        ("classes: [{name: a, value: 1}, {name: a, value: 2}]", "name a is given twice"),
        ("classes: [{name: a, value: 1}, {name: b, value: [2, 1]}]", "value 1 is given twice"),
        ("classes: [{name: a, value: 1}]\nignore: [1]", "value 1 is given twice"),
        ("classes: [{name: a, colour: '#00000g'}]", 'a colour is "#rrggbb"'),
        ("classes: [{name: a, colour: [0, 0, 256]}]", 'a colour is "#rrggbb"'),
        ("classes: [{name: a, value: 1.5}]", "a value is a whole number, got 1.5"),
        ("classes: [{name: a, value: true}]", "a value is a whole number, got True"),
        ("classes: [{name: 3, value: 1}]", "name must be text, got 3"),
        ("classes: [{name: a}]\nbackground: b", "background is 'b', which is no class's name"),
        ("classes: [{name: a, value: 0}]\ntolerance: 99", "from 0 to 64, got 99"),
        ("classes: [{name: a, value: 0}]\nunknown: guess", "refuse or, .* ignore, got 'guess'"),
        ("classes: [{name: a}]\nunknown: ignore", "with value or colour, ignore"),
        ("a: &x [1]\nclasses: *x", "anchors and aliases"),
        ("classes: [", "not readable YAML"),
        ("- a", "must be a mapping"),
    ],
)
def test_a_wrong_class_file_is_refused_with_key_and_rule(text: str, rule: str) -> None:
    with pytest.raises(DataError, match=rf"/data/classes\.yaml.*{rule}"):
        read_class_file(text.encode(), WHERE)


def test_off_colours_are_named_with_counts_and_never_guessed() -> None:
    table = read_class_file(COLOURS.encode(), WHERE)
    codes = np.zeros((6, 6), np.int32)
    codes[0, :] = 0xFF0000
    codes[1, :4], codes[2, :2] = 0xF80000, 0x050505
    with pytest.raises(DataError) as error:
        map_mask(Mask(None, codes, None, lossy=True), table, Path("m.jpg"))
    assert str(error.value).startswith(
        "m.jpg: 6 pixels of 2 colours that are none of the classes: #f80000 (4 pixels), #050505 (2 "
        "pixels); none is further than 7 a channel from a class"
    )
    assert "JPEG changes colours: save masks as PNG" in str(error.value)


@pytest.mark.parametrize("tolerance", [0, 3])
def test_pixels_of_other_colours_are_ignored_where_the_file_says_so(tolerance: int) -> None:
    text = COLOURS.replace("tolerance: 3", f"tolerance: {tolerance}\nunknown: ignore")
    table = read_class_file(text.encode(), WHERE)
    assert read_class_file(write_class_file(table).encode(), WHERE) == table
    codes = np.array([[0xFF0000, 0xFC0303, 0x800000, 0x000000, 0x010203]], np.int32)
    found = map_mask(Mask(None, codes), table, Path("m.png"))
    assert found.tolist() == [[1, 1, 255, 0, 0] if tolerance else [1, 255, 255, 0, 255]]


def test_a_tolerance_takes_near_colours_of_one_class_alone() -> None:
    table = read_class_file(COLOURS.encode(), WHERE)
    codes = np.array([[0xFF0000, 0xFC0303, 0x000003, 0xFFFFFE]], np.int32)
    np.testing.assert_array_equal(
        map_mask(Mask(None, codes), table, Path("m.png")), [[1, 1, 0, 255]]
    )
    near_two = (
        b'classes: [{name: a, colour: "#000000"}, {name: b, colour: "#040404"}]\ntolerance: 3'
    )
    with pytest.raises(DataError, match="#020202"):
        map_mask(
            Mask(None, np.array([[0x020202]], np.int32)),
            read_class_file(near_two, WHERE),
            Path("m.png"),
        )
