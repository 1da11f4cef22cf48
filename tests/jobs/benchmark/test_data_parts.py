"""The parts of a training row: all of it is in the table, each version in its turn."""

from pathlib import Path

import pytest
from tiny import pack_shapes

from spikeseg.datasets.transforms import TransformConfig
from spikeseg.jobs.benchmark.data_parts import PARTS, list_versions, measure_parts


def test_parts_and_the_rest_are_all_of_a_row(tmp_path: Path) -> None:
    transform = TransformConfig(crop=(16, 16), resize="range", box=(16, 16), ratio_range=(1, 2))
    versions = list_versions(transform)
    costs = measure_parts(pack_shapes(tmp_path / "data"), versions, rows=8, rounds=1)
    assert list(costs) == ["version 1", "version 2", "version 2, reduced"]
    for cost in costs.values():
        assert set(cost.parts) == {*PARTS, "the rest"}
        # A function of another name would be missing here.
        assert all(milliseconds > 0 for milliseconds in cost.parts.values())
        assert sum(cost.parts.values()) == pytest.approx(cost.total)
        assert cost.images_per_cpu_s > 0


def test_an_image_that_is_not_resized_has_nothing_to_decode_smaller() -> None:
    assert list(list_versions(TransformConfig(crop=(16, 16)))) == ["version 1", "version 2"]
