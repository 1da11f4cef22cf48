"""A window resized alone is the window of the whole: images within a grey level, labels equal."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeseg.datasets.resize import (
    ResizedLabel,
    Window,
    resize_image,
    resize_image_window,
    resize_label,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """The hardest image there is: every neighbour differs, often by 255 levels."""
    values = np.random.default_rng(seed).integers(0, 2, shape) * 255
    return values.astype(np.uint8)


def windows(size: tuple[int, int], seed: int) -> list[Window]:
    """Some windows of a size, its corners and all of it among them."""
    generator = np.random.default_rng(seed)
    found = [Window(0, 0, *size), Window(size[0] - 1, size[1] - 1, 1, 1), Window(0, 0, 1, 1)]
    for _ in range(6):
        height, width = (int(generator.integers(1, length + 1)) for length in size)
        top, left = (
            int(generator.integers(length - part + 1))
            for length, part in zip(size, (height, width), strict=True)
        )
        found.append(Window(top, left, height, width))
    return found


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("interpolation", ["bilinear", "area"])
@pytest.mark.parametrize(
    "size",
    [(90, 130), (45, 65), (61, 87), (23, 31), (180, 260), (211, 301), (500, 723), (40, 200)],
    ids=str,
)
def test_a_window_is_that_of_the_whole_image_within_a_grey_level(
    size: tuple[int, int], interpolation: str, channels: int
) -> None:
    image = noise(90, 130, channels, seed=channels)
    whole = resize_image(image, size, interpolation).astype(int)
    for window in windows(size, channels):
        part = resize_image_window(image, size, window, interpolation)
        assert part.shape == (window.height, window.width, channels)
        assert np.abs(part - whole[window.slices]).max() <= 1, window


@given(
    source=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_two_sizes_fit(source: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    image, label = noise(*source, 3, seed=seed), noise(*source, seed=seed).astype(np.uint16) * 99
    for window in windows(size, seed):
        for interpolation in ("bilinear", "area"):
            whole = resize_image(image, size, interpolation)[window.slices].astype(int)
            part = resize_image_window(image, size, window, interpolation)
            assert np.abs(part - whole).max() <= 1
        lazy = ResizedLabel(label, size).cut(window)
        assert lazy.dtype == np.uint16
        np.testing.assert_array_equal(lazy, resize_label(label, size)[window.slices])


def test_pixels_far_from_the_window_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(400, 400, 3)
    seen: list[int] = []
    resize = cv2.resize

    def count(pixels: np.ndarray, *arguments: object, **options: object) -> np.ndarray:
        seen.append(pixels.size)
        return resize(pixels, *arguments, **options)  # pyright: ignore

    monkeypatch.setattr(cv2, "resize", count)
    resize_image_window(image, (800, 800), Window(500, 300, 100, 100), "bilinear")
    # 100 of 800 pixels are 50 of 400; 3 more on each side are looked at.
    assert seen[0] < 3 * 58**2


@pytest.mark.parametrize("reduction", [2, 4])
@pytest.mark.parametrize("source", [(240, 320), (241, 323)], ids=str)
def test_an_image_decoded_at_a_smaller_scale_lies_where_the_whole_one_does(
    source: tuple[int, int], reduction: int
) -> None:
    rows, columns = np.meshgrid(*(np.arange(length) for length in source), indexing="ij")
    ramp = np.stack([rows * 0.7, columns * 0.7, (rows + columns) * 0.4], axis=2)
    done, data = cv2.imencode(".jpg", ramp.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert done
    small = cv2.imdecode(
        data, {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}[reduction]
    )
    assert small is not None
    assert small.shape[:2] == tuple(-(-length // reduction) for length in source)
    size = (source[0] // reduction - 3, source[1] // reduction - 3)
    window = Window(size[0] - 30, size[1] - 30, 30, 30)
    whole = resize_image(cv2.imdecode(data, cv2.IMREAD_COLOR), size, "area")[window.slices]
    part = resize_image_window(small, size, window, "area", source=source, reduction=reduction)
    # Half a source pixel aside would be .35 levels of each ramp.
    shift = (part.astype(float) - whole).mean((0, 1))
    assert np.abs(shift).max() < 0.2
