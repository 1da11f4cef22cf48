"""A checkpoint's energy: as many images as were asked for, under the rule that was asked for."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from trained_run import TrainedRun

from spikeseg.platform.runs import energy_pictures
from spikeseg.platform.runs.energy_report import EnergyRequest, measure_checkpoint_energy


def test_pictures_show_the_images_and_the_rule_of_the_figures(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    draw = energy_pictures.draw_image_energy

    def note(energies: list[float], scores: list[float]) -> bytes:
        drawn.append((energies, scores))
        return draw(energies, scores)

    monkeypatch.setattr(energy_pictures, "draw_image_energy", note)
    request = EnergyRequest("val", images=3, rule="quantised", pictures=tmp_path / "out")
    result = measure_checkpoint_energy(trained.folder, (), request)
    ((energies, scores),) = drawn
    assert len(energies) == len(scores) == 3
    assert sum(energies) / 3 == pytest.approx(result["total_mj"], rel=1e-9)
    for name in ("layers", "images", "places"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert min(picture.size) > 100
