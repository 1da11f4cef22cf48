"""The strip at the top of a run's page has one size, whatever it is about."""

import io

import numpy as np
import pytest
from PIL import Image

from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.figures.charts import draw_class_bars
from spikeseg.platform.figures.strip import HEIGHT, WIDTH, draw_strip, fit_page

SPACE = load_label_space("shapes")
CLASSES = [{"class": name, "IoU": 10.0 * n} for n, name in enumerate(SPACE.classes)]


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


@pytest.mark.parametrize("shape", [(64, 64), (30, 400), (400, 30)])
def test_every_shape_of_image_gives_one_size(shape: tuple[int, int]) -> None:
    truth = np.zeros(shape, np.uint8)
    row = (np.zeros((*shape, 3), np.uint8), truth, truth)
    assert size_of(draw_strip(row, SPACE, CLASSES, [(1, 2.0), (2, 9.0)])) == (WIDTH, HEIGHT)


def test_without_a_row_or_a_value_it_is_drawn_all_the_same() -> None:
    nothing = [{"class": name, "IoU": None} for name in SPACE.classes]
    assert size_of(draw_strip(None, SPACE, nothing, [])) == (WIDTH, HEIGHT)
    assert size_of(draw_class_bars({"a$b": None}))[0] > 0
    assert size_of(draw_class_bars({"a$b": 3.0, "c": 0.0}))[0] > 0


def test_wrong_pixels_are_red_in_the_strip() -> None:
    truth = np.zeros((64, 64), np.uint8)
    row = (np.zeros((64, 64, 3), np.uint8), truth, truth + 1)
    drawn = np.asarray(Image.open(io.BytesIO(draw_strip(row, SPACE, CLASSES, []))).convert("RGB"))
    errors = drawn[8:42, 300:370].reshape(-1, 3)
    assert (errors[:, 0] > 150).all() and (errors[:, 1] < 80).all()


@pytest.mark.parametrize(("width", "kept"), [(1200, WIDTH), (WIDTH, WIDTH), (300, 300)])
def test_a_picture_for_a_page_is_never_wider_than_the_strip(width: int, kept: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 100)).save(buffer, "PNG")
    assert size_of(fit_page(buffer.getvalue())) == (kept, round(100 * kept / width))
