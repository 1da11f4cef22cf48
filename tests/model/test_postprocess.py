"""Queries become maps: semantic, and panoptic with the published thresholds."""

import torch
from torch import Tensor, nn

from spikeseg.model.postprocess import label_map, panoptic_maps, semantic_logits
from spikeseg.model.prediction import DensePrediction, MaskPrediction

THINGS = {0, 1}  # 2 and 3 are stuff, 4 is "no object".


def predict(queries: list[tuple[int, float, Tensor]]) -> MaskPrediction:
    """One image; per query its class, that class's logit over 0, and a mask of 0 and 1."""
    classes = torch.zeros(len(queries), 5)
    masks = []
    for index, (kind, logit, mask) in enumerate(queries):
        classes[index, kind] = logit
        masks.append(mask.float() * 20 - 10)
    return MaskPrediction(classes[None, None], torch.stack(masks)[None, None], None)


def rows(first: int, last: int, size: int = 8) -> Tensor:
    mask = torch.zeros(size, size)
    mask[first:last] = 1
    return mask


def test_things_stay_apart_and_stuff_is_joined() -> None:
    prediction = predict(
        [(0, 9.0, rows(0, 2)), (0, 9.0, rows(2, 4)), (2, 8.0, rows(4, 6)), (2, 9.0, rows(6, 8))]
    )
    (found,) = panoptic_maps(prediction, (8, 8), things=THINGS)
    assert found.classes == [0, 0, 2]
    assert found.segments[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 3, 3]
    assert found.scores[2] == found.scores[0]  # The higher of the two joined.


def test_unsure_and_no_object_queries_are_left_out() -> None:
    # Of five classes, logit 2.7 gives probability 0.788 and 2.9 gives 0.820.
    prediction = predict([(0, 2.7, rows(0, 3)), (1, 2.9, rows(3, 5)), (4, 9.0, rows(5, 8))])
    (found,) = panoptic_maps(prediction, (8, 8), things=THINGS)
    assert found.classes == [1]
    assert found.segments[:, 0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_a_query_that_lost_most_of_its_mask_is_left_out() -> None:
    # The second keeps 1 of 4 rows against a surer first; 4 of 5 would do.
    covered = predict([(0, 9.0, rows(0, 6)), (1, 5.0, rows(3, 7))])
    (found,) = panoptic_maps(covered, (8, 8), things=THINGS)
    assert found.classes == [0] and not found.segments[6:].any()
    grazed = predict([(0, 9.0, rows(0, 4)), (1, 5.0, rows(3, 8))])
    (found,) = panoptic_maps(grazed, (8, 8), things=THINGS)
    assert found.classes == [0, 1]


def test_an_image_without_any_sure_query_is_empty() -> None:
    (found,) = panoptic_maps(predict([(4, 9.0, rows(0, 8))]), (8, 8), things=THINGS)
    assert not found.segments.any() and found.classes == found.scores == []


def test_a_panoptic_map_has_the_original_size() -> None:
    prediction = predict([(0, 9.0, rows(0, 4)), (2, 9.0, rows(4, 8))])
    (found,) = panoptic_maps(prediction, (16, 16), things=THINGS, original=(20, 12))
    assert found.segments.shape == (20, 12)
    assert found.segments[:9].eq(1).all() and found.segments[11:].eq(2).all()


def test_panoptic_masks_take_the_inputs_size_before_the_original_one() -> None:
    torch.manual_seed(0)
    masks = [torch.randn(8, 8) for _ in range(2)]
    prediction = MaskPrediction(
        torch.tensor([[[[9.0, 0, 0, 0, 0], [0, 9.0, 0, 0, 0]]]]),
        torch.stack(masks)[None, None],
        None,
    )
    (found,) = panoptic_maps(
        prediction, (24, 16), things=THINGS, original=(21, 37), overlap_threshold=0.0
    )

    def resize(x: Tensor, *sizes: tuple[int, int]) -> Tensor:
        for size in sizes:
            x = nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return x[0]

    def segments(logits: Tensor) -> Tensor:
        return torch.where(logits.max(0).values >= 0, logits.argmax(0) + 1, 0)

    logits = torch.stack(masks)[None]
    assert torch.equal(found.segments, segments(resize(logits, (24, 16), (21, 37))))
    assert not torch.equal(found.segments, segments(resize(logits, (21, 37))))


def test_semantic_logits_sum_class_times_mask_over_queries() -> None:
    prediction = predict([(0, 3.0, rows(0, 4)), (0, 3.0, rows(0, 4)), (2, 3.0, rows(4, 8))])
    logits = semantic_logits(prediction, (8, 8))
    probability = torch.tensor([3.0, 0, 0, 0, 0]).softmax(0)
    on, off = torch.sigmoid(torch.tensor([10.0, -10.0]))
    expected = 2 * probability[0] * on + probability[1] * off
    torch.testing.assert_close(logits[0, 0, 0, 0], expected)
    assert label_map(logits, (8, 8))[0, :, 0].tolist() == [0] * 4 + [2] * 4


def test_label_maps_follow_the_size_asked_for() -> None:
    logits = torch.randn(2, 3, 8, 10)
    assert label_map(logits, (53, 77)).shape == (2, 53, 77)
    assert semantic_logits(DensePrediction(logits), (16, 20)).shape == (2, 3, 16, 20)


def test_a_map_of_another_size_may_be_empty_too() -> None:
    unsure = predict([(0, 0.0, rows(0, 8))])
    (found,) = panoptic_maps(unsure, (16, 16), things=THINGS, original=(20, 12))
    assert found.segments.shape == (20, 12) and not found.segments.any()
