"""Random changes of colours: the published distortion, or a table and a linear map."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

# ITU-R BT.601: what an RGB pixel weighs in grey.
_GREY = np.array([0.299, 0.587, 0.114])
_BYTES = np.arange(256, dtype=np.uint8)
_EFFECTS = ("gamma", "brightness", "colour_balance", "contrast", "saturation")


@dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """Strength and probability of each change; a strength of 0 leaves it out.

    Attributes:
        version: How the changes are drawn and computed; a later rule gets another number, so that
            a recipe keeps its pixels.
        brightness: All channels times a factor in 1 +- this.
        colour_balance: Each channel times a factor of its own in 1 +- this.
        contrast: Distance from the image's mean grey times a factor in 1 +- this.
        saturation: Distance of a pixel from its own grey times a factor in 1 +- this.
        gamma: Exponent exp(+- this) of values on 0..1.
        brightness_probability: Probability in [0, 1] that brightness changes at all.
        colour_balance_probability: The same for the colour balance.
        contrast_probability: The same for the contrast.
        saturation_probability: The same for the saturation.
        gamma_probability: The same for the exponent.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": True}

    version: Literal[1] = 1
    brightness: float = 0.0
    colour_balance: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    gamma: float = 0.0
    brightness_probability: float = 1.0
    colour_balance_probability: float = 1.0
    contrast_probability: float = 1.0
    saturation_probability: float = 1.0
    gamma_probability: float = 1.0

    def __post_init__(self) -> None:
        for name in _EFFECTS:
            strength, probability = getattr(self, name), getattr(self, f"{name}_probability")
            # Factors stay above 0; an exponent of exp(2) is 7 already.
            most = 2 if name == "gamma" else 1
            if not 0 <= strength < most:
                raise ValueError(f"{name} must be in [0, {most}), got {strength}")
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}_probability must be in [0, 1], got {probability}")


def jitter_colours(
    config: JitterConfig, image: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Change an image's colours: gamma, brightness and balance, then contrast and saturation.

    Args:
        config: Strengths and probabilities.
        image: (H, W, 3) uint8 RGB.
        generator: The randomness; as many numbers are drawn whatever the probabilities.

    Returns:
        (H, W, 3) float32 on 0..255, not rounded.
    """
    exponent = math.exp(_draw(config, "gamma", generator)[0])
    brightness = 1 + _draw(config, "brightness", generator)[0]
    balance = 1 + _draw(config, "colour_balance", generator, count=3)
    contrast = 1 + _draw(config, "contrast", generator)[0]
    saturation = 1 + _draw(config, "saturation", generator)[0]

    curve = 255 * (np.arange(256) / 255) ** exponent
    table = (curve[:, None] * (brightness * balance)).astype(np.float32)
    pixels = cv2.LUT(np.ascontiguousarray(image), table[None])
    mean = float(pixels.mean((0, 1), dtype=np.float64) @ _GREY)
    linear = contrast * (saturation * np.eye(3) + (1 - saturation) * _GREY)
    shift = np.full((3, 1), mean * (1 - contrast))
    mixed = cv2.transform(pixels, np.hstack([linear, shift]))
    return np.clip(mixed, 0, 255, out=mixed)


def photometric_distortion(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, each with probability 0.5, in uint8.

    Args:
        image: (H, W, 3) uint8 RGB.
        generator: The randomness.

    Source: published recipe: brightness +-32, contrast and saturation 0.5..1.5, hue +-18 of 180,
        contrast before or after the colour steps with even chance.
    """

    def scale(factor: float, shift: float = 0.0) -> np.ndarray:
        return np.clip(_BYTES.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)

    if generator.random() < 0.5:
        image = map_bytes(image, scale(1.0, generator.uniform(-32, 32)))
    contrast_first = generator.random() < 0.5
    if contrast_first and generator.random() < 0.5:
        image = map_bytes(image, scale(generator.uniform(0.5, 1.5)))
    if generator.random() < 0.5:
        image = _map_hsv(image, 1, scale(generator.uniform(0.5, 1.5)))
    if generator.random() < 0.5:
        # Hues end at 179.
        hue = ((_BYTES.astype(np.int32) + int(generator.integers(-18, 18))) % 180).astype(np.uint8)
        image = _map_hsv(image, 0, hue)
    if not contrast_first and generator.random() < 0.5:
        image = map_bytes(image, scale(generator.uniform(0.5, 1.5)))
    return image


def map_bytes(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each byte of (H, W, C) by its entry of a (256,) table of any type."""
    return cv2.LUT(image, table).reshape(image.shape)


def _draw(
    config: JitterConfig, effect: str, generator: np.random.Generator, count: int = 1
) -> np.ndarray:
    """`count` numbers in +- an effect's strength; 0 where it does not happen."""
    strength: float = getattr(config, effect)
    happens = generator.random() < getattr(config, f"{effect}_probability")
    numbers = generator.uniform(-strength, strength, count)
    return numbers if happens else np.zeros(count)


def _map_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Replace one of hue, saturation and value of an RGB image by the entries of a table."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, channel), table), hsv, channel)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
