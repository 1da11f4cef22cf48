"""Lovász-softmax loss: a convex surrogate of the mean IoU, from the probabilities of all pixels."""

import torch
from torch import Tensor


def lovasz_softmax_loss(logits: Tensor, target: Tensor, *, ignore_label: int) -> Tensor:
    """Mean over the classes that occur of the Lovász extension of their Jaccard loss.

    A pixel's error for a class is 1 - p where it is of the class and p elsewhere, with p the
    softmax probability. All images are taken as one set of pixels.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64 label maps.
        ignore_label: Label left out.

    Returns:
        A scalar in [0, 1], float32 or wider; 0, with a gradient of zeros, where no pixel is
        labelled.

    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss" (CVPR 2018), equations 8, 9 and 11.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    labelled = target != ignore_label
    labels = target[labelled]
    if not len(labels):
        return logits.sum() * 0
    # (K, P): one row per class, sorted at once.
    probabilities = logits.softmax(1).movedim(1, 0)[:, labelled]
    classes = labels.unique()
    members = labels == classes[:, None]
    errors = torch.where(members, 1 - probabilities[classes], probabilities[classes])
    errors, order = errors.sort(dim=1, descending=True)
    steps = _compute_jaccard_steps(members.gather(1, order).to(errors.dtype))
    return (errors * steps).sum(1).mean()


def _compute_jaccard_steps(members: Tensor) -> Tensor:
    """Growth of the Jaccard loss as wrong pixels are added one by one.

    Args:
        members: (K, P), 1 where the pixel is of the class, in the order in which pixels are added;
            every class has at least one.

    Returns:
        (K, P); entry i is the loss with the first i + 1 pixels wrong less that with the first i.
    """
    size = members.sum(1, keepdim=True)
    intersection = size - members.cumsum(1)
    union = size + (1 - members).cumsum(1)
    loss = 1 - intersection / union
    return torch.cat((loss[:, :1], loss[:, 1:] - loss[:, :-1]), 1)
