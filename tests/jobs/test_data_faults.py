"""`spikeseg data`: a wrong request ends with 2, failed work with 1, each with a sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import spikeseg
from packed_versions import to_version_2
from raw_layouts import LAYOUTS, write_index

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import MANIFEST, pack

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "shapes"
    pack("shapes", Shapes(ShapesOptions(size=(32, 32), train=4, val=2, test=2)), Path(), folder)
    return folder


def pack_camvid(capsys: Capture, source: Path, output: Path, *more: str) -> tuple[int, str]:
    line = ("data", "pack", "camvid", "--allow-partial", "--source", str(source))
    ran = spikeseg(capsys, *line, "--output", str(output), *more)
    return ran.code, ran.err


@pytest.mark.parametrize("damage", ["truncated", "without shards"])
def test_inspecting_a_damaged_manifest_is_one_sentence(
    damage: str, data: Path, capsys: Capture
) -> None:
    content = (data / MANIFEST).read_text()
    if damage == "truncated":
        (data / MANIFEST).write_text(content[:100])
    else:
        (data / MANIFEST).write_text(json.dumps({**json.loads(content), "shards": None}))
    ran = spikeseg(capsys, "data", "inspect", str(data))
    assert ran.code == 2
    assert ran.err.startswith(f"spikeseg: {data / MANIFEST}: not a readable manifest (")
    assert ran.err.count("\n") == 1


def test_augmented_rows_need_a_training_split(data: Path, tmp_path: Path, capsys: Capture) -> None:
    content = json.loads((to_version_2(data) / MANIFEST).read_text())
    content["shards"] = [shard for shard in content["shards"] if shard["split"] != "train"]
    del content["splits"]["train"]
    (data / MANIFEST).write_text(json.dumps(content))
    sheet = str(tmp_path / "sheet.png")
    line = ("data", "inspect", str(data), "--augmented", "shapes_tiny", "--sheet", sheet)
    ran = spikeseg(capsys, *line)
    assert ran.code == 2
    assert f"{data}: augmented rows are those of the split train, it has val, test" in ran.err


def test_labels_that_are_all_ignored_have_a_page(tmp_path: Path, capsys: Capture) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    for path in layout.source.glob("*annot/*.png"):
        write_index(path, np.full((24, 32), 11, np.uint8))
    assert pack_camvid(capsys, layout.source, tmp_path / "packed")[0] == 0
    page = tmp_path / "page.html"
    ran = spikeseg(capsys, "data", "inspect", str(tmp_path / "packed"), "--html", str(page))
    assert ran.code == 0
    assert "only 0.0 % of its pixels are labelled" in page.read_text()


def test_a_fault_met_while_packing_is_failed_work(tmp_path: Path, capsys: Capture) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    (layout.source / "val" / "b2.png").write_bytes(b"")
    code, error = pack_camvid(capsys, layout.source, tmp_path / "packed")
    assert code == 1
    assert "b2.png: the file is empty" in error


@pytest.mark.parametrize("fault", ["no list", "no image", "other files"])
def test_a_fault_met_before_packing_is_a_wrong_request(
    fault: str, tmp_path: Path, capsys: Capture
) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    output = tmp_path / "packed"
    output.mkdir()
    if fault == "no list":
        (layout.source / "val.txt").write_text("\n")
    elif fault == "no image":
        (layout.source / "val" / "b2.png").unlink()
    else:
        (output / "thesis.txt").write_text("mine")
    assert pack_camvid(capsys, layout.source, output)[0] == 2


def test_more_bad_rows_than_an_earlier_packing_was_allowed_are_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    layout = LAYOUTS["camvid"](tmp_path / "raw")
    (layout.source / "val" / "b2.png").write_bytes(b"")
    line = (layout.source, tmp_path / "packed", "--on-bad-row", "quarantine")
    assert pack_camvid(capsys, *line, "--max-bad", "50")[0] == 0
    code, error = pack_camvid(capsys, *line)
    assert code == 2
    assert "was packed without 1 bad rows (quarantine.csv), at most 0 of 5" in error


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["pack", "inspect"])
def test_keys_in_a_location_are_not_printed(
    verb: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Nothing listens on port 9, so that the location is named in an error.
    uri = "s3://AKIAEXAMPLE:hushhush@bucket/set?scheme=http&endpoint_override=127.0.0.1:9&region=us"
    if verb == "inspect":
        ran = spikeseg(capsys, "data", "inspect", uri)
    else:
        layout = LAYOUTS["camvid"](tmp_path / "raw")
        line = ("--allow-partial", "--source", str(layout.source), "--output", uri)
        ran = spikeseg(capsys, "data", "pack", "camvid", *line)
    assert ran.code != 0
    assert "s3://bucket/set" in ran.err
    assert "hushhush" not in ran.err + ran.out
    assert "AKIAEXAMPLE" not in ran.err + ran.out
