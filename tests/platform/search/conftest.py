"""What the tests of whole sweeps share."""

from pathlib import Path

import pytest

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed data set of a few generated images."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    options = ShapesOptions(size=(32, 32), train=8, val=3, test=3, seed=1)
    pack("shapes", Shapes(options), Path(), folder, progress=lambda done, total: None)
    return folder
