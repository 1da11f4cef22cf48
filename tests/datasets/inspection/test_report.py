"""What `data inspect` says, page and pictures: counts by hand, warnings, the rows of the sheet."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spikeseg.datasets.encoded_pixels import encode_png
from spikeseg.datasets.inspection.contact_sheet import draw_augmented_sheet, draw_contact_sheet
from spikeseg.datasets.inspection.html_page import render_report
from spikeseg.datasets.inspection.report import Report, format_report, inspect_packed
from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import DataError, EncodedRow, LabelSpace, RawRow, Row
from spikeseg.datasets.transforms import TransformConfig, row_generator, train_transform

SPACE = LabelSpace(
    name="hand",
    classes=("road", "car", "sky & <cloud>"),
    palette=((1, 2, 3), (200, 0, 0), (0, 0, 200)),
    ignore_label=255,
    raw_to_train={0: 0, 1: 1, 2: 2, 255: 255},
    is_thing=(False, True, False),
)


def made(row_id: str, counts: Sequence[int], *, grey: int, crowd: tuple[bool, ...] = ()) -> Row:
    """A row of 20 columns whose pixels of road, car, sky and ignored are counted out."""
    label = np.repeat(np.array([0, 1, 2, 255], np.uint8), counts).reshape(-1, 20)
    image = np.full((*label.shape, 3), grey, np.uint8)
    if not crowd:
        return Row(row_id, image, label)
    return Row(row_id, image, label, (label == 1).astype(np.uint16), (1,), crowd)


class Handmade:
    """Rows that a test wrote down."""

    label_space = SPACE
    needs_source = False
    official_rows: Mapping[str, int] = {}
    options: Mapping[str, Any] = {"made": "by <hand>"}

    def __init__(self, splits: Mapping[str, Sequence[Row]]) -> None:
        self._rows = {(split, row.id): row for split, rows in splits.items() for row in rows}

    def rows(self, source: Path, *, partial: bool) -> Sequence[RawRow]:
        return [RawRow(name, split, Path(name), Path(name)) for split, name in self._rows]

    def read(self, row: RawRow) -> EncodedRow:
        found = self._rows[row.split, row.id]
        return EncodedRow(found, encode_png(found.image), verbatim=False)


def packed(folder: Path, **splits: Sequence[Row]) -> PackedDataset:
    pack("hand", Handmade(splits), Path(), folder, workers=1)
    return PackedDataset.open(folder)


def inspected(folder: Path, **splits: Sequence[Row]) -> Report:
    return inspect_packed(packed(folder, **splits))


def test_rows_sizes_and_shares_are_those_counted_by_hand(tmp_path: Path) -> None:
    rows = [made("a", (60, 30, 0, 10), grey=1), made("b", (100, 0, 0, 100), grey=2)]
    report = inspected(tmp_path, train=rows, val=[made("c", (0, 0, 40, 0), grey=3)])
    train = report.splits["train"]
    assert (train.rows, report.splits["val"].rows) == (2, 1)
    assert train.sizes == {"20 x 5": 1, "20 x 10": 1}
    assert (train.smallest, train.largest) == ((20, 5), (20, 10))
    assert train.labelled == pytest.approx(190 / 300)
    shares = {"road": 160 / 190, "car": 30 / 190, "sky & <cloud>": 0}
    assert train.shares == pytest.approx(shares)
    assert report.splits["val"].shares["sky & <cloud>"] == 1


def test_segments_things_and_crowds_are_counted(tmp_path: Path) -> None:
    rows = [
        made("a", (60, 40, 0, 0), grey=1, crowd=(True,)),
        made("b", (60, 40, 0, 0), grey=2, crowd=(False,)),
    ]
    train = inspected(tmp_path, train=rows).splits["train"]
    assert (train.segments, train.things, train.crowds) == (2, 2, 1)


EVEN = (40, 30, 30, 0)

WARNINGS: dict[str, tuple[dict[str, list[Row]], str]] = {
    "class never seen": (
        {"train": [made("a", (50, 50, 0, 0), grey=1)]},
        "train: classes never seen: sky & <cloud>",
    ),
    "other shares than train": (
        {
            "train": [made("a", (50, 10, 40, 0), grey=1)],
            "val": [made("b", (30, 40, 30, 0), grey=2)],
        },
        "val: class shares differ 3 times or more from train: car",
    ),
    "image of train in val": (
        {"train": [made("a", EVEN, grey=1)], "val": [made("b", EVEN, grey=1)]},
        "1 images are both in train and val (b)",
    ),
    "image twice in a split": (
        {"train": [made("a", EVEN, grey=1), made("b", EVEN, grey=1)]},
        "train: 1 images occur more than once (b)",
    ),
    "hardly labelled": (
        {"train": [made("a", (20, 20, 20, 140), grey=1)]},
        "train: only 30.0 % of its pixels are labelled",
    ),
    "things without instances": (
        {"train": [made(str(n), EVEN, grey=n, crowd=(True,)) for n in range(3)]},
        "train: all 3 segments of things are crowds: labels without instances?",
    ),
}


@pytest.mark.parametrize("fault", WARNINGS)
def test_what_looks_wrong_is_warned_of_and_nothing_else(tmp_path: Path, fault: str) -> None:
    splits, warning = WARNINGS[fault]
    report = inspected(tmp_path, **splits)
    assert report.warnings == (warning,)
    assert f"warning: {warning}" in format_report(report)


def test_data_without_faults_has_no_warning(tmp_path: Path) -> None:
    report = inspected(
        tmp_path,
        train=[made("a", EVEN, grey=1), made("b", EVEN, grey=2, crowd=(False,))],
        val=[made("c", EVEN, grey=3)],
    )
    assert report.warnings == ()
    assert "warning" not in format_report(report)


def test_the_text_has_counts_shares_and_digests(tmp_path: Path) -> None:
    rows = [made("a", (60, 30, 0, 10), grey=1), made("b", (100, 0, 0, 100), grey=2)]
    report = inspected(tmp_path, train=rows)
    lines = format_report(report).splitlines()
    table = next(line for line in lines if line.startswith("train  "))
    assert table.split()[:3] == ["train", "2", "63.3"]
    assert next(line for line in lines if line.startswith("road")).split()[-1] == "84.211"
    assert f"train digest {report.splits['train'].digest}" in lines


def test_the_page_has_names_and_numbers_and_escapes_them(tmp_path: Path) -> None:
    dataset = packed(tmp_path, train=[made("a", (50, 30, 20, 100), grey=1)])
    report = inspect_packed(dataset)
    sheet = draw_contact_sheet(dataset, rows_per_split=1)
    page = render_report(report, SPACE.palette, sheet)
    assert "sky &amp; &lt;cloud&gt;" in page
    assert "by &lt;hand&gt;" in page
    assert "<cloud>" not in page
    assert "<hand>" not in page
    assert report.digest in page
    assert "<td>50.000</td>" in page
    assert "<td>30.000</td>" in page
    assert "<td>train</td><td>1</td><td>50.0 %</td>" in page
    assert "#c80000" in page, "the colour of cars"
    assert 'src="data:image/png;base64,' in page


def test_nothing_that_a_manifest_says_becomes_markup_or_is_loaded(tmp_path: Path) -> None:
    dataset = packed(tmp_path, train=[made("a", EVEN, grey=1)])
    report = inspect_packed(dataset)
    evil = '<script>alert(1)</script>"><img src=http://127.0.0.1/x>'
    split = dataclasses.replace(report.splits["train"], digest=evil[:16], sizes={evil: 1})
    report = dataclasses.replace(
        report, name=evil, path=evil, digest=evil, warnings=(evil,), splits={evil: split}
    )
    page = render_report(report, SPACE.palette, draw_contact_sheet(dataset, rows_per_split=1))
    assert "<script" not in page
    assert page.count("<img") == 1
    assert "default-src 'none'; img-src data:" in page


def test_labels_that_are_all_ignored_have_a_page(tmp_path: Path) -> None:
    dataset = packed(tmp_path, train=[made("a", (0, 0, 0, 100), grey=1)])
    report = inspect_packed(dataset)
    page = render_report(report, SPACE.palette, draw_contact_sheet(dataset, rows_per_split=1))
    assert "<td>0.000</td>" in page
    assert "only 0.0 % of its pixels are labelled" in page


def test_the_contact_sheet_shows_image_beside_label(tmp_path: Path) -> None:
    dataset = packed(tmp_path, train=[made("a", (100, 0, 0, 0), grey=100)])
    sheet = np.asarray(draw_contact_sheet(dataset, rows_per_split=1))
    # 20 x 5 pixels become 320 x 80 beside 320 x 80, below a line of text.
    assert (sheet[24:104, 6:326] == 100).all()
    # 0.4 of the image and 0.6 of the class's colour.
    assert (sheet[24:104, 326:646] == (40, 41, 41)).all()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder = tmp_path_factory.mktemp("shapes")
    options = ShapesOptions(size=(40, 48), train=5, val=1, test=1)
    pack("shapes", Shapes(options), Path(), folder, workers=1)
    return PackedDataset.open(folder)


def test_the_augmented_sheet_has_16_different_rows_as_training_sees_them(
    shapes: PackedDataset,
) -> None:
    config = TransformConfig(
        crop=(32, 32), resize="range", box=(40, 48), ratio_range=(0.5, 2.0), max_category_ratio=1.0
    )
    sheet = np.asarray(draw_augmented_sheet(shapes, config, seed=7, count=16))
    drawn = np.random.default_rng(7).integers(5, size=16).tolist()
    tiles = set()
    for number, index in enumerate(drawn):
        top, left = 24 + number // 2 * 344, 6 + number % 2 * 646
        tile = sheet[top : top + 320, left : left + 320]
        row = shapes.row("train", index)
        # The n-th tile is the row in epoch n: seed, epoch and id alone make it again.
        pixels, _ = train_transform(config, row, row_generator(7, number, row.id))
        colours = np.moveaxis(pixels, 0, 2) * np.array(config.std) + np.array(config.mean)
        image = np.clip(colours, 0, 255).astype(np.uint8)
        expected = cv2.resize(image, (320, 320), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(tile, expected)
        tiles.add(tile.tobytes())
    assert len(tiles) == 16


def test_an_augmented_sheet_needs_a_training_split(tmp_path: Path) -> None:
    dataset = packed(tmp_path, val=[made("a", EVEN, grey=1)])
    config = TransformConfig(crop=(16, 16))
    with pytest.raises(DataError, match=r"augmented rows are those of the split train, it has val"):
        draw_augmented_sheet(dataset, config, seed=0, count=16)
