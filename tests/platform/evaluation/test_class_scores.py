"""Windows, views, tiles and bands give what a hand computes or one whole pass gives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikeseg.datasets.transforms import TransformConfig
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.evaluation.class_scores import (
    InferenceSettings,
    NetworkView,
    plan_tiles,
    resize_score_bands,
    score_images,
    score_tile_bands,
    score_window_mean,
    to_probabilities,
)

PLAIN = TransformConfig(crop=(16, 16), mean=(0, 0, 0), std=(1, 1, 1))


def view(score: object, *, joined: bool = False) -> NetworkView:
    return NetworkView(score, joined, PLAIN, torch.device("cpu"))  # pyright: ignore[reportArgumentType]


def count_from_window(images: Tensor) -> Tensor:
    """Class 0 scores the column within the window, class 1 the window's first pixel."""
    batch, _, height, width = images.shape
    columns = torch.arange(width, dtype=torch.float32).expand(batch, 1, height, width)
    return torch.cat((columns, images[:, :1, :1, :1].expand(batch, 1, height, width)), 1)


def test_windows_lie_and_are_averaged_as_in_the_published_evaluator() -> None:
    # A line of 7 pixels, windows of 4 at stride 2: they start at 0, 2 and, moved back, at 3.
    images = torch.arange(7.0).expand(1, 3, 1, 7)
    scores = score_window_mean(count_from_window, images, (1, 4), (1, 2))
    first = [0, 1, (2 + 0) / 2, (3 + 1 + 0) / 3, (2 + 1) / 2, (3 + 2) / 2, 3]
    assert scores[0, 0, 0].tolist() == pytest.approx(first)
    second = [0, 0, (0 + 2) / 2, (0 + 2 + 3) / 3, (2 + 3) / 2, (2 + 3) / 2, 3]
    assert scores[0, 1, 0].tolist() == pytest.approx(second)


def test_an_image_smaller_than_the_window_is_one_window() -> None:
    images = torch.rand(2, 3, 20, 18)
    seen = []

    def score(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape))
        return part

    assert torch.equal(score_window_mean(score, images, (32, 32), (16, 16)), images)
    assert seen == [(2, 3, 20, 18)]


def test_views_are_the_mean_of_softmaxes_at_the_images_size() -> None:
    image = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)

    def score(inputs: Tensor) -> Tensor:
        return inputs / 100

    merged = score_images(view(score), [image], InferenceSettings(scales=(1.0, 0.5), flip=True))
    assert merged.votes.shape == (1, 3, 24, 20)
    assert torch.allclose(merged.votes.sum(1), torch.ones(1, 24, 20))
    # A network that sees no direction says the same of the mirrored view.
    unflipped = score_images(view(score), [image], InferenceSettings(scales=(1.0, 0.5)))
    assert torch.allclose(merged.votes, unflipped.votes, atol=1e-6)
    whole = torch.from_numpy(image.transpose(2, 0, 1))[None].float() / 100
    single = score_images(view(score), [image], InferenceSettings(scales=(1.0,), flip=True))
    assert torch.allclose(single.votes, whole.softmax(1), atol=1e-6)


def test_one_view_keeps_the_scores_themselves() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    logits = torch.randn(1, 4, 16, 16)
    merged = score_images(view(lambda _: logits), [image], InferenceSettings())
    assert torch.equal(merged.votes, logits)
    assert torch.equal(merged.probabilities, logits.softmax(1))


def test_joined_scores_become_shares_and_nothing_stays_nothing() -> None:
    scores = torch.tensor([3.0, 1.0, 0.0, 0.0]).view(2, 2, 1, 1).transpose(0, 1)
    shares = to_probabilities(torch.tensor([[3.0, 1.0]]).view(1, 2, 1, 1), joined=True)
    assert shares.flatten().tolist() == [0.75, 0.25]
    assert to_probabilities(scores * 0, joined=True).isfinite().all()


def test_tiles_of_a_pointwise_network_are_the_whole() -> None:
    image = np.random.default_rng(1).integers(0, 255, (150, 211, 3), dtype=np.uint8)
    network = view(lambda inputs: inputs)
    tiling = plan_tiles((150, 211), 64)
    bands = list(score_tile_bands(network, image, tiling))
    assert [top for top, _ in bands] == tiling.tops
    joined = torch.cat([scores for _, scores in bands], 1)
    expected = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    assert torch.allclose(joined, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (500, 129), (40, 3000)])
def test_tiles_are_equal_cover_all_and_overlap_by_a_quarter(size: tuple[int, int]) -> None:
    tiling = plan_tiles(size, 64)
    for starts, side, length in (
        (tiling.tops, tiling.height, size[0]),
        (tiling.lefts, tiling.width, size[1]),
    ):
        assert starts[0] == 0 and starts[-1] + side == length
        steps = np.diff(starts)
        assert not len(steps) or side - steps.max() >= 15


def test_a_seam_between_tiles_is_passed_gradually() -> None:
    image = np.zeros((64, 112, 3), np.uint8)
    answers = iter([0.0, 1.0])

    def score(inputs: Tensor) -> Tensor:
        return torch.full((1, 1, *inputs.shape[-2:]), next(answers))

    ((_, scores),) = score_tile_bands(view(score), image, plan_tiles((64, 112), 64))
    line = scores[0, 32]
    assert line[0] == 0 and line[-1] == 1
    assert (line.diff() >= 0).all() and line.diff().max() < 0.1


def test_bands_of_a_resize_are_the_resize() -> None:
    scores = torch.randn(3, 13, 17)
    for size in ((40, 31), (13, 17), (7, 50)):
        bands = list(resize_score_bands(scores, size, rows=9))
        joined = torch.cat([band for _, band in bands], 1)
        expected = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
        assert torch.allclose(joined, expected, atol=1e-5)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="--window and --stride are given together"):
        InferenceSettings(window=(32, 32))
    with pytest.raises(ConfigError, match="stride from 1 to that, got 32 and 33"):
        InferenceSettings(window=(32, 32), stride=(33, 16))
    with pytest.raises(ConfigError, match="--scales: factors"):
        InferenceSettings(scales=(0.0, 1.0))
