"""Class scores of images: whole, in windows, at several scales and flipped, in bands of tiles."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...datasets.transforms import TransformConfig, normalize, resize_for_test
from ..config.errors import ConfigError

ScoreImages = Callable[[Tensor], Tensor]
"""(B, 3, h, w) normalized images to (B, K, h, w) class scores."""


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """How an image is shown to the network.

    Attributes:
        window: Height and width of a sliding window; None shows the whole image.
        stride: Pixels between two windows, down and to the right; at most the window.
        scales: Factors on the size at which the network sees an image.
        flip: Whether each view is also shown mirrored left to right.
    """

    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if (self.window is None) != (self.stride is None):
            raise ConfigError("--window and --stride are given together or not at all")
        if self.window is not None and self.stride is not None:
            for what, side, step in zip(("height", "width"), self.window, self.stride, strict=True):
                if side < 16 or not 1 <= step <= side:
                    raise ConfigError(
                        f"--window, --stride: a window's {what} must be at least 16 and its stride "
                        f"from 1 to that, got {side} and {step}"
                    )
        if not self.scales or not all(0.05 <= scale <= 20 for scale in self.scales):
            raise ConfigError(f"--scales: factors must be from 0.05 to 20, got {self.scales}")

    @property
    def is_single(self) -> bool:
        """Whether an image is seen once, whole and as it is."""
        return self.window is None and self.scales == (1.0,) and not self.flip


class MergedScores(NamedTuple):
    """Scores of images at the size of their labels.

    Attributes:
        votes: (B, K, H, W), whose argmax is the label: the scores themselves of one view, the mean
            of the views' softmax of several.
        probabilities: (B, K, H, W), non-negative with sum 1 over K.
    """

    votes: Tensor
    probabilities: Tensor


def resize_scores(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, K, h, w) scores bilinearly, as the published evaluator does."""
    if scores.shape[-2:] == torch.Size(size):
        return scores
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def to_probabilities(scores: Tensor, *, joined: bool) -> Tensor:
    """Turn (B, K, H, W) class scores into probabilities.

    Args:
        scores: Of the FPN head logits, whose softmax is taken; of the query decoder joined
            probabilities, which are divided by their sum.
        joined: Whether they are of the query decoder.
    """
    if not joined:
        return scores.softmax(1)
    return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


@torch.inference_mode()
def score_window_mean(
    score: ScoreImages, images: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Score overlapping windows, and average where they overlap.

    Args:
        score: The network.
        images: (B, 3, h, w), normalized.
        window: Height and width; an image that is smaller is one window.
        stride: Pixels between windows; the last one of a line is moved back into the image.

    Returns:
        (B, K, h, w).

    Source: sliding inference of mmsegmentation: windows at multiples of the stride, the last one
        moved back, sums of scores over counts.
    """
    height, width = images.shape[-2:]
    total: Tensor | None = None
    counts = images.new_zeros(1, 1, height, width)
    for top in _window_starts(height, window[0], stride[0]):
        for left in _window_starts(width, window[1], stride[1]):
            rows = slice(top, min(top + window[0], height))
            columns = slice(left, min(left + window[1], width))
            scores = score(images[:, :, rows, columns])
            if total is None:
                total = scores.new_zeros(*scores.shape[:2], height, width)
            total[:, :, rows, columns] += scores
            counts[:, :, rows, columns] += 1
    assert total is not None
    return total / counts


def _window_starts(length: int, window: int, stride: int) -> list[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride + window, length) - window, 0) for index in range(count)]


class NetworkView(NamedTuple):
    """A network as images are shown to it.

    Attributes:
        score: The network.
        joined: Whether its scores are joined probabilities (query decoder) or logits (FPN head).
        transform: Test-time resizing and normalization.
        device: Where it takes its images.
    """

    score: ScoreImages
    joined: bool
    transform: TransformConfig
    device: torch.device


@torch.inference_mode()
def score_images(
    network: NetworkView,
    images: Sequence[np.ndarray],
    settings: InferenceSettings,
    size: tuple[int, int] | None = None,
) -> MergedScores:
    """Score images of one size.

    Args:
        network: The network.
        images: (H, W, 3) uint8 each, RGB, all of one size.
        settings: How they are shown.
        size: Height and width of the scores; the images' own if not given.

    Source: several views: mean of the softmax of each view's scores at the image's size, as test
        time augmentation of mmsegmentation does.
    """
    size = size or (images[0].shape[0], images[0].shape[1])
    views = []
    for scale in settings.scales:
        inputs = prepare_images(network.transform, images, scale=scale).to(network.device)
        for mirrored in (False, True) if settings.flip else (False,):
            shown = inputs.flip(-1) if mirrored else inputs
            if settings.window is None or settings.stride is None:
                scores = network.score(shown)
            else:
                scores = score_window_mean(network.score, shown, settings.window, settings.stride)
            views.append(resize_scores(scores.flip(-1) if mirrored else scores, size))
    if len(views) == 1:
        return MergedScores(views[0], to_probabilities(views[0], joined=network.joined))
    votes = sum(view.softmax(1) for view in views) / len(views)
    assert isinstance(votes, Tensor)
    if not network.joined:
        return MergedScores(votes, votes)
    mean = sum(to_probabilities(view, joined=True) for view in views) / len(views)
    assert isinstance(mean, Tensor)
    return MergedScores(votes, mean)


def prepare_images(
    transform: TransformConfig, images: Sequence[np.ndarray], *, scale: float = 1.0
) -> Tensor:
    """Resize and normalize images of one size for the network, (B, 3, h, w) float32."""
    inputs = [normalize(transform, resize_for_test(transform, item, scale)) for item in images]
    return torch.from_numpy(np.stack(inputs))


class Tiling(NamedTuple):
    """Equal tiles that cover an image.

    Attributes:
        tops: First row of every line of tiles.
        lefts: First column of every tile of a line.
        height: Rows of a tile.
        width: Columns of a tile.
        overlap: Least pixels that neighbours share.
    """

    tops: list[int]
    lefts: list[int]
    height: int
    width: int
    overlap: int


def plan_tiles(size: tuple[int, int], tile: int) -> Tiling:
    """Cover an image with equal tiles that share at least a quarter with their neighbours."""
    overlap = tile // 4
    starts = []
    for length in size:
        count = 1 if length <= tile else -(-(length - overlap) // (tile - overlap))
        last = max(0, length - tile)
        starts.append([round(last * index / max(1, count - 1)) for index in range(count)])
    return Tiling(starts[0], starts[1], min(tile, size[0]), min(tile, size[1]), overlap)


@torch.inference_mode()
def score_tile_bands(
    network: NetworkView, image: np.ndarray, tiling: Tiling
) -> Iterator[tuple[int, Tensor]]:
    """Score an image tile by tile; overlaps are averaged, a tile counts less towards its border.

    Memory holds the scores of one line of tiles, never those of the image.

    Args:
        network: The network.
        image: (H, W, 3) uint8 at the network's input size.
        tiling: Its tiles.

    Yields:
        First row and (K, rows, W) scores of each finished band, from top to bottom.
    """
    height, width = image.shape[:2]
    weight = _tile_weight(tiling).to(network.device)
    total: Tensor | None = None
    weights = torch.zeros(tiling.height, width, device=network.device)
    for number, top in enumerate(tiling.tops):
        for left in tiling.lefts:
            tile = image[top : top + tiling.height, left : left + tiling.width]
            inputs = torch.from_numpy(normalize(network.transform, tile))[None]
            scores = network.score(inputs.to(network.device))[0]
            if total is None:
                total = scores.new_zeros(scores.shape[0], tiling.height, width)
            total[:, :, left : left + tiling.width] += scores * weight
            weights[:, left : left + tiling.width] += weight
        assert total is not None
        following = tiling.tops[number + 1] if number + 1 < len(tiling.tops) else height
        done = min(following - top, tiling.height)
        yield top, total[:, :done] / weights[:done]
        total = torch.cat((total[:, done:], total.new_zeros(total.shape[0], done, width)), 1)
        weights = torch.cat((weights[done:], weights.new_zeros(done, width)))


def _tile_weight(tiling: Tiling) -> Tensor:
    """(h, w) weights of a tile's pixels: they rise over the overlap from its border inwards."""

    def rise(length: int) -> Tensor:
        distance = torch.arange(length, dtype=torch.float32)
        inwards = torch.minimum(distance, length - 1 - distance) + 1
        return (inwards / max(1, tiling.overlap)).clamp(max=1)

    return rise(tiling.height)[:, None] * rise(tiling.width)[None, :]


def resize_score_bands(
    scores: Tensor, size: tuple[int, int], rows: int = 512
) -> Iterator[tuple[int, Tensor]]:
    """Resize (K, h, w) scores bilinearly, some rows of the result at a time.

    Args:
        scores: At the network's input size.
        size: Height and width of the result.
        rows: Rows of a band.

    Yields:
        First row and (K, rows, W) of each band; together what `resize_scores` makes, but for the
        last bits.
    """
    height = scores.shape[-2]
    for top in range(0, size[0], rows):
        count = min(rows, size[0] - top)
        position = (torch.arange(top, top + count, device=scores.device) + 0.5) * (height / size[0])
        position = (position - 0.5).clamp(min=0)
        above = position.floor().long().clamp(max=height - 1)
        below = (above + 1).clamp(max=height - 1)
        share = (position - above).to(scores.dtype)[:, None]
        band = scores[:, above] * (1 - share) + scores[:, below] * share
        yield top, resize_scores(band[None], (count, size[1]))[0]
