"""What a person names is found in its order, kept apart, and refused where it names nothing."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spikeseg.datasets.spec import DataError
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.prediction.sources import SourceList, SourceReader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/x.png", "a/x.png", "a/x.jpg", "a/deep/y.png", "a/.hidden.png", "a/notes.txt"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 17)).save(path, "PNG")
    return tmp_path / "pictures"


def names(sources: SourceList) -> list[str]:
    return [source.name for source in sources]


def test_a_folder_is_walked_in_order_and_keeps_its_folders_in_names(folder: Path) -> None:
    sources = SourceList([str(folder)])
    found = names(sources)
    assert sources.count() == len(found) == 4
    assert found[0].startswith("a/x") and found[1].startswith("a/x") and len(set(found)) == 4
    assert found[2:] == ["a/deep/y", "b/x"]


def test_files_of_one_name_in_two_folders_are_kept_apart(folder: Path) -> None:
    files = [str(folder / "a" / "x.png"), str(folder / "b" / "x.png")]
    assert names(SourceList(files)) == ["a/x", "b/x"]
    assert names(SourceList(files[:1])) == ["x"]


def test_no_name_leads_out_of_the_results_folder(folder: Path) -> None:
    files = [str(folder / "a" / ".." / "b" / "x.png"), str(folder / "a" / "x.png")]
    assert names(SourceList(files)) == ["b/x", "a/x"]


def test_a_name_does_not_depend_on_how_often_the_list_is_read(folder: Path) -> None:
    sources = SourceList([str(folder)])
    assert list(sources) == list(sources)


def test_patterns_and_lists_name_files(folder: Path, tmp_path: Path) -> None:
    assert names(SourceList([str(folder / "**" / "*.png")])) == ["a/deep/y", "a/x", "b/x"]
    listed = folder / "some.txt"
    listed.write_text("a/x.png\n\nb/missing.png\n")
    sources = list(SourceList([], lists=[listed]))
    assert [source.origin for source in sources] == [
        str(folder / "a/x.png"),
        str(folder / "b/missing.png"),
    ]


def test_a_pipe_is_read_only_as_far_as_it_is_asked_for(folder: Path) -> None:
    taken = []

    def pipe() -> Iterator[str]:
        for name in ("a/x.png\n", "b/x.png\n"):
            taken.append(name)
            yield str(folder / name)

    sources = SourceList(["-"], pipe=pipe())
    assert sources.count() is None
    rest = iter(sources)
    first = next(rest)
    assert (first.name, len(taken)) == ("x", 1)
    # Nobody knew that a second one of this name would come.
    assert next(rest).name.startswith("x-")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("missing.png", "missing.png: no such file or folder"),
        ("*.webp", "no image or video fits the pattern"),
        ("empty", "the folder has no image"),
    ],
)
def test_a_word_that_names_nothing_is_refused(folder: Path, word: str, sentence: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=sentence.replace("*", r"\*")):
        SourceList([str(folder / word)])
    with pytest.raises(ConfigError, match="no image: name files"):
        SourceList([])


def test_an_image_of_other_channels_than_the_networks_is_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "bands.npy", np.zeros((20, 20, 5), np.uint8))
    np.save(tmp_path / "rgb.npy", np.full((20, 20, 3), 7, np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((20, 20, 3)))
    five, floats, three = SourceList([str(tmp_path)])
    reader = SourceReader(channels=3)
    with pytest.raises(DataError, match=r"bands\.npy: the image has 5 channels, the network .* 3$"):
        reader.read(five)
    with pytest.raises(DataError, match=r"float\.npy: .* of float64"):
        reader.read(floats)
    assert (reader.read(three) == 7).all()
