"""Data that an earlier version packed is read as it was written."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from command import spikeseg
from stored_examples import Stored

from spikeseg.datasets.packed.reader import PackedDataset


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def manifest(stored: Stored) -> dict[str, Any]:
    return json.loads((stored.data / "manifest.json").read_text())


def test_every_row_has_the_pixels_that_were_packed(stored: Stored) -> None:
    dataset = PackedDataset.open(stored.data)
    rows = {split: [dataset.row(split, i) for i in range(n)] for split, n in dataset.splits.items()}
    pixels = {
        split: [digest(row.image) + digest(row.label) for row in members]
        for split, members in rows.items()
    }
    assert pixels == stored.expected["pixels"]
    assert {split: len(members) for split, members in rows.items()} == manifest(stored)["splits"]
    names = [f"{split}-{i:06d}" for split, members in rows.items() for i in range(len(members))]
    assert [row.id for members in rows.values() for row in members] == names


def test_its_shards_are_found_whole(stored: Stored, capsys: pytest.CaptureFixture[str]) -> None:
    ran = spikeseg(capsys, "data", "inspect", str(stored.data), "--json", "--verify")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    rows = {split: found["rows"] for split, found in report["splits"].items()}
    assert rows == manifest(stored)["splits"]


def test_packing_it_again_finds_it_finished(
    stored: Stored, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in stored.data.iterdir()}
    options = manifest(stored)["options"]
    size = [str(length) for length in options["size"]]
    rows = [str(options[split]) for split in ("train", "val", "test")]
    given = ["--size", *size, "--rows", *rows, "--seed", str(options["seed"])]
    ran = spikeseg(capsys, "data", "pack", "shapes", *given, "--output", str(stored.data))
    assert ran.code == 0, ran.err
    assert f"digest {manifest(stored)['digest']}" in ran.out
    assert {path.name: path.read_bytes() for path in stored.data.iterdir()} == before
