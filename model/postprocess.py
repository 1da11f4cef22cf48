"""Predictions to maps: joined class logits, and label maps at the original size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .prediction import MaskPrediction, Prediction


def semantic_logits(prediction: Prediction, size: tuple[int, int]) -> Tensor:
    """Class scores per pixel at the network's input size.

    Args:
        prediction: Of either decoder.
        size: Height and width of the network's input.

    Returns:
        (B, K, H, W). Of the query decoder: sum over queries of class probability times mask
        probability, "no object" left out; of the FPN head: logits.

    Source: ARCHITECTURE section 5, "Semantic inference".
    """
    if isinstance(prediction, MaskPrediction):
        masks = _resize(prediction.mask_logits[-1], size).sigmoid()
        classes = prediction.class_logits[-1].softmax(-1)[..., :-1]
        return torch.einsum("bqk,bqhw->bkhw", classes, masks)
    return _resize(prediction.logits, size)


def label_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Most likely class of every pixel.

    Args:
        logits: (B, K, h, w).
        size: Height and width of the label map.

    Returns:
        (B, H, W) int64.
    """
    return _resize(logits, size).argmax(1)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[-2:] == torch.Size(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
