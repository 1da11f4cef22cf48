"""Labels to the masks that a query decoder is trained on: one per class, or one per segment."""

from typing import NamedTuple

import numpy as np

from .spec import Row


class MaskTargets(NamedTuple):
    """What the queries of one image are matched with.

    Attributes:
        classes: (N,) int64 train ids.
        masks: (N, H, W) bool, disjoint.
        ignored: (H, W) bool pixels that no loss may look at: void, padding and crowds.
    """

    classes: np.ndarray
    masks: np.ndarray
    ignored: np.ndarray


def semantic_targets(target: np.ndarray, ignore_label: int) -> MaskTargets:
    """One mask for each class that occurs, in ascending order.

    Args:
        target: (H, W) uint8 train ids.
        ignore_label: Train id that belongs to no mask.
    """
    ignored = target == ignore_label
    classes = np.unique(target[~ignored]).astype(np.int64)
    return MaskTargets(classes, target == classes[:, None, None], ignored)


def panoptic_targets(
    target: np.ndarray, instances: np.ndarray, row: Row, ignore_label: int
) -> MaskTargets:
    """One mask for each segment that is visible, in the row's order; crowds are ignored.

    Args:
        target: (H, W) uint8 train ids, as augmented.
        instances: (H, W) uint16 segment numbers, augmented together with them.
        row: The row that they come from; its segments and crowd flags are read.
        ignore_label: Train id that belongs to no mask.
    """
    crowd = np.array([False, *(row.crowd or (False,) * len(row.segments))], bool)
    ignored = (target == ignore_label) | crowd[instances]
    seen = np.unique(instances[~ignored & (instances > 0)])
    classes = np.array([row.segments[number - 1] for number in seen.tolist()], np.int64)
    return MaskTargets(classes, instances == seen[:, None, None], ignored)
