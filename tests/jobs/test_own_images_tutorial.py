"""The tutorial of own images: every command of it, word for word, on sources drawn for it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command import spikeseg
from tutorial_sets import NAMES, write_boats, write_cells, write_garden

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.jobs.benchmark.paint_pictures import paint_pictures

Capture = pytest.CaptureFixture[str]
# Guessing the background everywhere scores about a third of its share: the sets are easy.
BETTER_THAN_BLIND = 10.0
GARDEN_PICTURE = "garden/images/back yard/Picture 01 (new).png"


def read_commands(repository: Path) -> list[str]:
    """Lines that begin with `spikeseg` in the fenced blocks, each once, in their order."""
    commands, fence = [], ""
    for line in (repository / "docs" / "own_images.md").read_text().splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence == "```" and line.startswith("spikeseg "):
            commands.append(line)
    return list(dict.fromkeys(commands))


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_garden(tmp_path / "garden")
    write_boats(tmp_path / "boats")
    write_cells(tmp_path / "cells")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tutorial_packs_shows_and_configures(
    sources: Path, repository: Path, capsys: Capture
) -> None:
    commands = read_commands(repository)
    verbs = [command.split()[1] for command in commands]
    assert {"data", "train", "evaluate", "predict"} == set(verbs)
    for command in commands:
        words = shlex.split(command)[1:]
        if words[0] == "train":
            words[:1] = ["config", "check"]
        if words[0] in ("data", "config"):
            ran = spikeseg(capsys, *words)
            assert ran.code == 0, (command, ran.err)
    for name, classes in {
        "garden": ("background", "green", "red"),
        "boats": ("background", "boat", "buoy"),
        "cells": ("background", "class_1", "class_2"),
    }.items():
        packed = PackedDataset.open(sources / "data" / name)
        assert packed.label_space.classes == classes
        assert packed.splits == {"train": 14, "val": 3, "test": 3}
    assert (sources / "garden.html").stat().st_size > 1000
    # What is looked at decides what the recipe leaves to its data.
    line = ("data", "inspect", "data/cells", "--augmented", "own", "--sheet", "cells.png")
    assert spikeseg(capsys, *line).code == 0 and Path("cells.png").exists()


def test_proposed_classes_are_asked_for_kept_and_confirmed(sources: Path, capsys: Capture) -> None:
    line = ["data", "pack", "folder", "--source", "cells", "--output", "out", "--split", "0.5,0.5"]
    ran = spikeseg(capsys, *line)
    assert ran.code == 2 and "proposed and not confirmed" in ran.err
    assert not Path("out").exists()
    draft = Path("cells/classes.proposed.yaml")
    draft.write_text(draft.read_text().replace('"class_2"', '"nucleus"'))
    assert spikeseg(capsys, *line).code == 2
    ran = spikeseg(capsys, *line, "--yes")
    assert ran.code == 0, ran.err
    assert "nucleus" in ran.out and not draft.exists() and Path("cells/classes.yaml").exists()
    assert PackedDataset.open("out").label_space.classes[2] == "nucleus"
    # The same command finds its own result, and asks nothing.
    assert spikeseg(capsys, *line).code == 0


def test_smoothed_masks_are_packed_once_their_edges_are_said_to_be_ignored(
    sources: Path, capsys: Capture
) -> None:
    paint_pictures(sources / "smooth", count=6, seed=0, edges="smooth")
    line = ["data", "pack", "folder", "--source", "smooth", "--output", "out", "--split", "0.5,0.5"]
    ran = spikeseg(capsys, *line, "--yes")
    assert ran.code == 2 and "6 of 6 pairs cannot be packed" in ran.err
    assert "unknown: ignore in the class file" in ran.err and "--split can draw" not in ran.out
    draft = Path("smooth/classes.proposed.yaml")
    draft.write_text(f"{draft.read_text()}unknown: ignore\n")
    ran = spikeseg(capsys, *line, "--yes")
    assert ran.code == 0, ran.err
    packed = PackedDataset.open("out")
    assert packed.label_space.classes == ("background", "green", "red", "yellow")
    label = packed.row("train", 0).label
    # Edges alone are ignored.
    assert 0 < (label == 255).mean() < 0.1


def test_options_of_folder_are_of_no_other_data_set(sources: Path, capsys: Capture) -> None:
    ran = spikeseg(capsys, "data", "pack", "shapes", "--output", "out", "--format", "coco")
    assert ran.code == 2 and "--format is an option of folder, not of shapes" in ran.err
    ran = spikeseg(capsys, "data", "pack", "folder", "--output", "out")
    assert ran.code == 2 and "folder needs --source" in ran.err
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["garden", "boats", "cells"])
def test_the_tutorial_trains_well_above_an_image_blind_guess(
    name: str, sources: Path, repository: Path
) -> None:
    """Of `garden` every command as it stands; the others are packed and then used alike."""
    script = sources / "bin" / "spikeseg"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m spikeseg.jobs.cli "$@"\n')
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    commands = read_commands(repository)
    if name != "garden":
        packing = [line for line in commands if f"--source {name} " in line]
        using = [line for line in commands if " pack " not in line]
        using = [line.replace("data/garden", f"data/{name}") for line in using]
        pictures = {"boats": f"boats/photos/{NAMES[0]}.png", "cells": "cells/images/slide0.tif"}
        commands = packing + [line.replace(GARDEN_PICTURE, pictures[name]) for line in using]
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], cwd=sources, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    assert len(list((sources / "predicted").glob("*.png"))) == 2
    (result,) = (sources / "runs").glob("own-*/result.json")
    pixels = PackedDataset.open(sources / "data" / name).class_pixels("test")
    blind = 100 * max(pixels) / sum(pixels) / len(pixels)
    score = json.loads(result.read_text())["metrics"]["test/mIoU"]
    assert score > blind + BETTER_THAN_BLIND, (name, score, blind)
