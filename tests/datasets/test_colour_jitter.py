"""Colour jitter: each change by hand, its probability, the same pixels from the same draws."""

import hashlib
from typing import Any

import numpy as np
import pytest

from spikeseg.datasets.colour_jitter import JitterConfig, jitter_colours
from spikeseg.datasets.spec import Row
from spikeseg.datasets.transforms import TransformConfig, augment, row_generator

LEARNED = JitterConfig(
    brightness=0.3,
    colour_balance=0.15,
    contrast=0.3,
    saturation=0.5,
    saturation_probability=0.5,
    gamma=0.4,
    gamma_probability=0.3,
)


class Highest:
    """A generator whose every number is the largest that may be drawn."""

    def random(self) -> float:
        return 0.5

    def uniform(self, low: float, high: float, count: int) -> np.ndarray:
        return np.full(count, high)


def jittered(image: list[list[list[int]]], **changes: float) -> np.ndarray:
    generator: Any = Highest()
    return jitter_colours(JitterConfig(**changes), np.array(image, np.uint8), generator)


def test_brightness_and_balance_are_factors_and_clip() -> None:
    image = [[[10, 20, 100], [200, 0, 0]]]
    np.testing.assert_allclose(
        jittered(image, brightness=0.5), [[[15, 30, 150], [255, 0, 0]]], rtol=1e-6
    )
    both = jittered(image, brightness=0.5, colour_balance=0.2)
    np.testing.assert_allclose(both[0, 0], [18, 36, 180], rtol=1e-6)


def test_contrast_is_about_the_mean_grey_and_saturation_about_each_pixels_own() -> None:
    grey = [[[100, 100, 100], [140, 140, 140]]]
    np.testing.assert_allclose(jittered(grey, contrast=0.5)[0, :, 0], [90, 150], rtol=1e-5)
    np.testing.assert_allclose(jittered(grey, saturation=0.5), grey, rtol=1e-5)
    # Grey of this one is 0.299 x 100 = 29.9.
    red = jittered([[[100, 0, 0]]], saturation=0.5)
    np.testing.assert_allclose(red[0, 0], [29.9 + 1.5 * 70.1, 0, 0], rtol=1e-5)


def test_gamma_bends_and_keeps_the_ends() -> None:
    curve = jittered([[[0, 128, 255]]], gamma=1.0)[0, 0]
    np.testing.assert_allclose(curve, [0, 255 * (128 / 255) ** np.e, 255], rtol=1e-5)


def test_a_change_happens_as_often_as_its_probability_says() -> None:
    image = np.full((1, 1, 3), 100, np.uint8)
    generator = np.random.default_rng(0)
    config = JitterConfig(brightness=0.3, brightness_probability=0.25)
    changed = [float(jitter_colours(config, image, generator)[0, 0, 0]) != 100 for _ in range(2000)]
    assert 0.2 < np.mean(changed) < 0.3


def test_as_many_numbers_are_drawn_whatever_happens() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    states = []
    for config in (JitterConfig(), LEARNED):
        generator = np.random.default_rng(1)
        jitter_colours(config, image, generator)
        states.append(generator.random())
    assert states[0] == states[1]


def test_the_jittered_row_is_a_function_of_seed_epoch_and_id() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    row = Row("row", image, np.zeros((40, 48), np.uint8))
    config = TransformConfig(crop=(32, 32), photometric=False, jitter=LEARNED)
    one, two, other = (
        augment(config, row, row_generator(seed, 4, "row")).image for seed in (3, 3, 5)
    )
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_transforms_without_jitter_keep_their_pixels() -> None:
    """The digests are those of the version before there was any."""
    row = Row(
        "r",
        np.arange(40 * 48 * 3, dtype=np.uint8).reshape(40, 48, 3),
        np.eye(40, 48, dtype=np.uint8),
    )
    configs = [
        TransformConfig(crop=(32, 32)),
        TransformConfig(
            crop=(32, 32), photometric=False, brightness=0.3, resize="range", box=(40, 48)
        ),
    ]
    digests = [
        hashlib.sha256(augment(config, row, row_generator(1, 2, "r")).image.tobytes()).hexdigest()[
            :12
        ]
        for config in configs
    ]
    assert digests == ["e133c8e54422", "e2997c684039"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"brightness": 1.0}, r"brightness must be in \[0, 1\), got 1.0"),
        ({"gamma": -0.1}, r"gamma must be in \[0, 2\), got -0.1"),
        ({"contrast": float("nan")}, r"contrast must be in"),
        ({"gamma_probability": 1.5}, r"gamma_probability must be in \[0, 1\], got 1.5"),
    ],
)
def test_strengths_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JitterConfig(**changes)


@pytest.mark.parametrize("beside", [{"photometric": True}, {"brightness": 0.1}])
def test_jitter_stands_alone(beside: dict) -> None:
    with pytest.raises(ValueError, match="jitter takes the place of photometric and brightness"):
        TransformConfig(**{"crop": (32, 32), "photometric": False, "jitter": LEARNED, **beside})
