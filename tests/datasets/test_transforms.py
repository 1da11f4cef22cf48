"""Augmentation: sizes and colours by hand, the published constants, the same row from its seed."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeseg.datasets import transforms
from spikeseg.datasets.colour_jitter import photometric_distortion
from spikeseg.datasets.spec import Row
from spikeseg.datasets.transforms import (
    TransformConfig,
    augment,
    find_reduction,
    fit_short_edge,
    fit_size,
    normalize,
    row_generator,
    train_transform,
)

PLAIN = {"flip": 0.0, "photometric": False, "max_category_ratio": 1.0}


class Drawn:
    """A generator whose answers are given; it fails when asked for more."""

    def __init__(self, *answers: float) -> None:
        self._answers = list(answers)

    def random(self) -> float:
        return self._answers.pop(0)

    def uniform(self, low: float, high: float) -> float:
        answer = self._answers.pop(0)
        assert low <= answer <= high
        return answer

    def integers(self, low: int, high: int | None = None) -> int:
        answer = int(self._answers.pop(0))
        assert (0, low)[high is not None] <= answer < (low if high is None else high)
        return answer

    def done(self) -> bool:
        return not self._answers


def drawn(*answers: float) -> Any:
    """A `Drawn` where a generator is asked for."""
    return Drawn(*answers)


def row(height: int, width: int, seed: int = 0) -> Row:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = generator.integers(0, 4, (height, width), dtype=np.uint8)
    instances = label.astype(np.uint16) * 100
    return Row("row", image, label, instances, (0,) * 300)


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((375, 500), (2048, 512), (512, 683)),
        ((427, 640), (512, 2048), (512, 767)),
        ((300, 1600), (2048, 512), (384, 2048)),
        ((333, 500), (520, 520), (346, 520)),
    ],
)
def test_images_are_fitted_as_the_published_resize_did(
    size: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fit_size(size, box) == expected


def test_the_short_edge_gives_way_to_the_longest_long_edge() -> None:
    assert fit_short_edge((512, 683), 640, 2560) == (640, 854)
    assert fit_short_edge((300, 1600), 640, 2560) == (480, 2560)
    assert fit_short_edge((300, 1600), 640, None) == (640, 3413)


def test_golden_pixels_are_normalized_as_published(shared_folder: Path) -> None:
    with np.load(shared_folder / "reference" / "golden" / "preprocess.npz") as content:
        config = TransformConfig(crop=(16, 16))
        found = normalize(config, content["in:bgr"][::-1].transpose(1, 2, 0))
        np.testing.assert_allclose(found, content["out:x"], rtol=1e-6, atol=1e-6)


def test_a_crop_is_padded_right_and_below_after_normalizing() -> None:
    source = row(20, 40)
    assert source.instances is not None
    config = TransformConfig(crop=(32, 32), **PLAIN)
    augmented = augment(config, source, drawn(0, 8, 1.0))
    assert augmented.instances is not None
    np.testing.assert_array_equal(augmented.target[:20], source.label[:, 8:40])
    np.testing.assert_array_equal(augmented.instances[:20], source.instances[:, 8:40])
    np.testing.assert_allclose(augmented.image[:, :20], normalize(config, source.image[:, 8:40]))
    assert (augmented.image[:, 20:] == 0).all()
    assert (augmented.target[20:] == 255).all()
    assert (augmented.instances[20:] == 0).all()


def test_image_label_and_instances_are_flipped_together() -> None:
    source = row(16, 16)
    assert source.instances is not None
    config = TransformConfig(crop=(16, 16), photometric=False, max_category_ratio=1.0)
    augmented = augment(config, source, drawn(0, 0, 0.49))
    assert augmented.instances is not None
    np.testing.assert_array_equal(augmented.target, source.label[:, ::-1])
    np.testing.assert_array_equal(augmented.instances, source.instances[:, ::-1])
    np.testing.assert_allclose(augmented.image, normalize(config, source.image[:, ::-1]))
    kept = augment(config, source, drawn(0, 0, 0.5))
    np.testing.assert_array_equal(kept.target, source.label)


def test_labels_are_resized_to_the_nearest_and_images_bilinear() -> None:
    source = row(16, 16)
    config = TransformConfig(
        crop=(32, 32), resize="range", box=(16, 16), ratio_range=(0.5, 2.0), **PLAIN
    )
    augmented = augment(config, source, drawn(2.0, 0, 0, 1.0))
    np.testing.assert_array_equal(augmented.target, np.kron(source.label, np.ones((2, 2), int)))
    resized = cv2.resize(source.image, (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(augmented.image, normalize(config, resized))


def halves(left: int) -> np.ndarray:
    """16 x 64: `left` columns of class 0, the rest class 1; the last 16 are ignored."""
    label = np.ones((16, 64), np.uint8)
    label[:, :left] = 0
    label[:, 48:] = 255
    return label


def crop_of(label: np.ndarray, *draws: int) -> tuple[np.ndarray, Drawn]:
    source = Row("row", np.zeros((*label.shape, 3), np.uint8), label)
    config = TransformConfig(crop=(16, 16), flip=0.0, photometric=False)
    generator = drawn(*[d for left in draws for d in (0, left)], 1.0)
    return train_transform(config, source, generator)[1], generator


def test_a_crop_is_drawn_again_while_one_class_fills_three_quarters() -> None:
    label = halves(24)
    # At 0 and 12 the first class has 16 and 12 of 16 columns: 0.75 is not below 0.75.
    target, generator = crop_of(label, 0, 12, 13)
    np.testing.assert_array_equal(target, label[:, 13:29])
    assert generator.done()


def test_ignored_pixels_do_not_count_in_the_crop_rule() -> None:
    label = halves(44)
    # Columns 40..55: 4 of class 0, 4 of class 1, 8 ignored.
    target, generator = crop_of(label, 40)
    np.testing.assert_array_equal(target, label[:, 40:56])
    assert generator.done()


def test_the_eleventh_crop_is_taken_unchecked() -> None:
    label = halves(44)
    target, generator = crop_of(label, *[0] * 10, 1)
    np.testing.assert_array_equal(target, label[:, 1:17])
    assert generator.done()


def test_brightness_and_contrast_clip_and_truncate_to_bytes() -> None:
    image = np.array([[[0, 100, 250]]], np.uint8)
    # Brightness +10.5; contrast first, x 1.5; no saturation, no hue.
    found = photometric_distortion(image, drawn(0.4, 10.5, 0.4, 0.4, 1.5, 0.6, 0.6))
    assert found.tolist() == [[[15, 165, 255]]]
    # Contrast last, x 0.5, and nothing else.
    found = photometric_distortion(image, drawn(0.6, 0.6, 0.6, 0.6, 0.4, 0.5))
    assert found.tolist() == [[[0, 50, 125]]]


def test_hue_turns_colours_and_saturation_pales_them() -> None:
    red = np.array([[[200, 0, 0]]], np.uint8)
    turned = photometric_distortion(red, drawn(0.6, 0.6, 0.6, 0.4, -10, 0.6))[0, 0]
    # OpenCV's hue has 180 steps: -10 is 20 degrees from red towards magenta.
    assert turned.tolist() == [200, 0, 67]
    paler = photometric_distortion(red, drawn(0.6, 0.6, 0.4, 0.5, 0.6, 0.6))[0, 0]
    assert paler[0] == 200
    assert paler[1] == paler[2] == pytest.approx(100, abs=1)


def test_hue_is_drawn_from_the_published_range() -> None:
    class Spy:
        low = high = 0

        def random(self) -> float:
            return 0.4

        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2

        def integers(self, low: int, high: int) -> int:
            self.low, self.high = low, high
            return 0

    spy: Any = Spy()
    photometric_distortion(np.zeros((2, 2, 3), np.uint8), spy)
    assert (spy.low, spy.high - 1) == (-18, 17)


@given(seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_augmented_row_is_a_function_of_seed_epoch_and_id(seed: int, epoch: int) -> None:
    config = TransformConfig(
        crop=(24, 24), resize="short_edge", short_edges=(20, 30, 40), max_long_edge=60
    )
    source = row(28, 36)
    before = source.image.copy()
    first = train_transform(config, source, row_generator(seed, epoch, source.id))
    again = train_transform(config, source, row_generator(seed, epoch, source.id))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(source.image, before)
    assert first[0].shape == (3, 24, 24)
    assert first[0].dtype == np.float32


def test_rows_epochs_and_seeds_draw_differently() -> None:
    draws = {
        row_generator(seed, epoch, name).random()
        for seed in (0, 1)
        for epoch in (0, 1)
        for name in ("a", "b")
    }
    assert len(draws) == 8


def test_test_images_are_fitted_and_normalized_alone() -> None:
    source = row(20, 30)
    config = TransformConfig(crop=(16, 16), test_box=(40, 200))
    found = transforms.test_transform(config, source)
    assert found.shape == (3, 40, 60)
    kept = transforms.test_transform(TransformConfig(crop=(16, 16)), source)
    assert kept.shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": (8, 16)}, "crop must be at least 16 x 16"),
        ({"resize": "short_edge"}, "short_edges are given exactly when"),
        ({"box": (4, 4)}, "box is given exactly when"),
        ({"ratio_range": (2.0, 1.0)}, "ratio_range must be 0 < smallest <= largest"),
        ({"max_category_ratio": 0.0}, r"max_category_ratio must be in \(0, 1\]"),
        ({"flip": 1.5}, r"flip must be in \[0, 1\]"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"std": (1.0, math.nan, 1.0)}, r"std must be positive and finite, got \(1.0, nan, 1.0\)"),
        ({"mean": (1.0, math.inf, 1.0)}, "mean must be finite numbers"),
        ({"ratio_range": (1.0, math.inf)}, "ratio_range must be .* finite"),
        (
            {"resize": "short_edge", "short_edges": (16, 0)},
            r"short_edges must be lengths of at least 1 pixel, got \(16, 0\)",
        ),
        (
            {"resize": "short_edge", "short_edges": (16,), "max_long_edge": 0},
            "max_long_edge must be lengths of at least 1 pixel, got 0",
        ),
        ({"resize": "range", "box": (0, 4)}, r"box must be lengths .* got \(0, 4\)"),
        ({"test_box": (0, 0)}, r"test_box must be lengths .* got \(0, 0\)"),
        ({"ignore_label": 256}, r"ignore_label must be 0\.\.255, got 256"),
        ({"decode": "reduced"}, "decode must be full in version 1, .* got reduced"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformConfig(**{"crop": (16, 16), **changes})


def test_no_edge_of_a_very_long_image_vanishes() -> None:
    assert fit_short_edge((1, 4000), 100, 200) == (1, 200)
    assert fit_size((1, 4000), (100, 200)) == (1, 200)


@pytest.mark.parametrize("channels", [1, 2, 7, 16])
@pytest.mark.parametrize("side", [20, 100])
def test_any_number_of_channels_is_augmented_as_each_would_be_alone(
    channels: int, side: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 64, channels)).astype(np.uint8)
    label = np.zeros((48, 64), np.uint8)

    def change(pixels: np.ndarray) -> np.ndarray:
        count = pixels.shape[2]
        config = TransformConfig(
            crop=(32, 32), resize="range", box=(side, side), brightness=0.3, photometric=False,
            mean=(100.0,) * count, std=(50.0,) * count, interpolation="area",
        )  # fmt: skip
        return train_transform(config, Row("a", pixels, label), np.random.default_rng(5))[0]

    together = change(image)
    assert together.shape == (channels, 32, 32)
    for channel in range(channels):
        alone = change(np.repeat(image[..., channel : channel + 1], 3, 2))
        np.testing.assert_allclose(together[channel], alone[0], atol=0.021)


def plain_photometric(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The published distortion pixel by pixel, as it was first written."""

    def scale(pixels: np.ndarray, factor: float, shift: float = 0.0) -> np.ndarray:
        return np.clip(pixels.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)

    if generator.random() < 0.5:
        image = scale(image, 1.0, generator.uniform(-32, 32))
    contrast_first = generator.random() < 0.5
    if contrast_first and generator.random() < 0.5:
        image = scale(image, generator.uniform(0.5, 1.5))
    if generator.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = scale(hsv[..., 1], generator.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if generator.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int32) + int(generator.integers(-18, 18))) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and generator.random() < 0.5:
        image = scale(image, generator.uniform(0.5, 1.5))
    return image


def test_colours_by_table_are_the_plain_arithmetic_to_the_last_bit() -> None:
    image = row(64, 64).image
    for seed in range(40):
        expected = plain_photometric(image, np.random.default_rng(seed))
        found = photometric_distortion(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, expected)


def test_normalizing_channel_by_channel_is_the_plain_formula_to_the_last_bit() -> None:
    config = TransformConfig(crop=(16, 16))
    mean, std = np.asarray(config.mean, np.float32), np.asarray(config.std, np.float32)
    for image in (row(30, 40).image, row(30, 40).image.astype(np.float32) * np.float32(0.77)):
        plain = ((image.astype(np.float32) - mean) / std).transpose(2, 0, 1)
        np.testing.assert_array_equal(normalize(config, image), plain)
        out = np.full((3, 50, 60), 7, np.float32)
        normalize(config, image, out[:, :30, :40])
        np.testing.assert_array_equal(out[:, :30, :40], plain)
        assert (out[:, 30:] == 7).all()


SIZES: dict[str, dict[str, Any]] = {
    "range": {"resize": "range", "box": (60, 80), "ratio_range": (0.5, 2.0)},
    "short edge": {"resize": "short_edge", "short_edges": (30, 50, 90), "max_long_edge": 100},
    "none": {},
}


@pytest.mark.parametrize("interpolation", ["bilinear", "area"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_cropping_first_draws_and_labels_the_same_and_keeps_grey_levels(
    sizes: dict[str, Any], interpolation: Any
) -> None:
    source = row(67, 91)
    old = TransformConfig(crop=(48, 64), photometric=False, interpolation=interpolation, **sizes)
    new = dataclasses.replace(old, version=2)
    std = np.asarray(old.std, np.float32)[:, None, None]
    for epoch in range(12):
        first, second = (augment(c, source, row_generator(3, epoch, "row")) for c in (old, new))
        np.testing.assert_array_equal(first.target, second.target)
        assert first.instances is not None and second.instances is not None
        np.testing.assert_array_equal(first.instances, second.instances)
        levels = np.abs(first.image - second.image) * std
        assert (levels > 1.001).mean() <= 0.001


def test_a_row_is_written_where_it_is_wanted_whatever_stood_there() -> None:
    config = TransformConfig(crop=(48, 64), version=2, **SIZES["range"])
    for epoch in range(6):
        fresh = augment(config, row(20, 30), row_generator(3, epoch, "row"))
        used = np.full((3, 48, 64), np.nan, np.float32)
        again = augment(config, row(20, 30), row_generator(3, epoch, "row"), used)
        assert again.image is used
        np.testing.assert_array_equal(fresh.image, used)


@pytest.mark.parametrize(
    ("changes", "size", "divisor"),
    [
        ({"resize": "range", "box": (120, 160), "ratio_range": (0.85, 1.5)}, (360, 480), 2),
        ({"resize": "range", "box": (120, 160), "ratio_range": (0.85, 1.51)}, (360, 480), 1),
        ({"resize": "range", "box": (120, 160)}, (512, 640), 4),
        ({"resize": "range", "box": (16, 16)}, (512, 640), 8),
        ({"resize": "short_edge", "short_edges": (100, 256)}, (512, 700), 2),
        ({"resize": "short_edge", "short_edges": (100, 257)}, (512, 700), 1),
        ({"resize": "short_edge", "short_edges": (500,), "max_long_edge": 128}, (512, 700), 4),
        ({}, (512, 700), 1),
    ],
)
def test_a_jpeg_is_decoded_smaller_only_where_no_draw_needs_more(
    changes: dict, size: tuple[int, int], divisor: int
) -> None:
    config = TransformConfig(crop=(16, 16), version=2, decode="reduced", **changes)
    assert find_reduction(config, size) == divisor
    assert find_reduction(dataclasses.replace(config, decode="full"), size) == 1
