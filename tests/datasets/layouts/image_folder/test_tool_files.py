"""Files that the annotation tools wrote themselves are read to the pixel."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from own_images import draw_pair, write_picture

from spikeseg.datasets.layouts.image_folder.prepare import FolderOptions, prepare_folder

NAMES = {"coco": "{}.png", "labelme": "n{}.png", "cvat": "n{}.jpg", "arrow": ""}


@pytest.mark.parametrize("tool", NAMES)
def test_what_a_tool_wrote_is_read_exactly(tool: str, repository: Path, tmp_path: Path) -> None:
    files = repository / "tests" / "support" / "data" / "tool_files" / tool
    root = Path(shutil.copytree(files, tmp_path / tool))
    for number in range(3):
        if NAMES[tool]:
            write_picture(root / NAMES[tool].format(number), draw_pair(number)[0])
    drawn = None if tool in ("arrow", "cvat") else "0.5,0.5"
    prepared = prepare_folder(root, FolderOptions(format=tool, split=drawn))  # type: ignore[arg-type]
    prepared.require_few_problems(0)
    rows = list(prepared.dataset.rows(root, partial=True))
    assert len(rows) == 3
    if tool == "arrow":
        assert prepared.table.label_space().classes == ("background", "class_1", "class_2")
    else:
        assert prepared.table.label_space().classes == ("background", "boat", "buoy")
    if drawn is None:
        assert sorted(row.split for row in rows) == ["train", "train", "val"]
    found = [prepared.dataset.read(row).row.label for row in rows]
    for number in range(3):
        expected = draw_pair(number)[1]
        assert sum(np.array_equal(label, expected) for label in found) == 1
