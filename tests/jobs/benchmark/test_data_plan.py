"""The benchmark of size opens what reads like packed data, and prints both costs."""

from pathlib import Path

import pytest
from command import spikeseg

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.jobs.benchmark.data_plan import write_many_shards


def test_made_shards_open_as_packed_data(tmp_path: Path) -> None:
    write_many_shards(tmp_path / "many", 40)
    dataset = PackedDataset.open(tmp_path / "many")
    assert dataset.splits == {"train": 36_000, "val": 4_000}
    assert dataset.shard_number("train", 35_999) == 35


@pytest.mark.slow
def test_both_costs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--plan", "--plan-shards", "40", "--plan-rows", "2500")
    ran = spikeseg(capsys, "benchmark", "data", *small)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].split() == ["seconds", "CPU", "s", "MB", "before", "MB", "peak", "MB", "more"]
    assert lines[1].startswith("open 40 shards")
    assert lines[1].endswith("(40 shards)")
    assert lines[2].startswith("plan 2500 rows")
    assert lines[2].endswith("(5 shards)")
