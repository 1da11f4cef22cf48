"""What a segmentor returns: queries with masks, or dense class logits."""

from typing import NamedTuple

from torch import Tensor


class MaskPrediction(NamedTuple):
    """Predictions of the query decoder, one per decoder layer and one for the bare queries.

    Attributes:
        class_logits: (L, B, Q, K+1), "no object" last; the last layer is the prediction.
        mask_logits: (L, B, Q, H', W').
        pixel_logits: (B, K, H', W') of the auxiliary pixel head in training, else None.
        factors: In training what mask_logits is made of (`mask_product`): embeddings (T, L, B, Q,
            E), features (T, B, E, H', W') and offsets (T, L, B, Q). A loss of a few masks need not
            go back through all.
    """

    class_logits: Tensor
    mask_logits: Tensor
    pixel_logits: Tensor | None
    factors: tuple[Tensor, Tensor, Tensor] | None = None


class DensePrediction(NamedTuple):
    """Predictions of the FPN head.

    Attributes:
        logits: (B, K, H', W').
    """

    logits: Tensor


Prediction = MaskPrediction | DensePrediction
