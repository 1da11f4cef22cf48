"""Which raw data sets can be packed, by name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..spec import DataError, RawDataset
from .ade20k import ADE20K, ADE20KPanoptic
from .bluemarble import BlueMarble
from .camvid import CamVid
from .cityscapes import Cityscapes, CityscapesPanoptic
from .coco_panoptic import COCOPanoptic
from .coco_stuff import COCOStuff10k, COCOStuff164k
from .pascal_context import PascalContext
from .shapes import Shapes, ShapesOptions
from .voc import PascalVOC, PascalVOCAug

CATALOG: dict[str, Callable[..., RawDataset]] = {
    "ade20k": ADE20K,
    "ade20k_panoptic": ADE20KPanoptic,
    "bluemarble": BlueMarble,
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "cityscapes_panoptic": CityscapesPanoptic,
    "coco_panoptic": COCOPanoptic,
    "coco_stuff10k": COCOStuff10k,
    "coco_stuff164k": COCOStuff164k,
    "pascal_context_59": partial(PascalContext, 59),
    "pascal_context_60": partial(PascalContext, 60),
    "pascal_voc12": PascalVOC,
    "pascal_voc12_aug": PascalVOCAug,
    "shapes": lambda **options: Shapes(ShapesOptions(**options)),
}


# Options that are no folder or file; any other is refused.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "pascal_context_59": ("class_order",),
    "pascal_context_60": ("class_order",),
    "shapes": ("size", "train", "val", "test", "seed", "level"),
}


def make_dataset(name: str, options: Mapping[str, Any]) -> RawDataset:
    """Build the reader of a data set.

    Args:
        name: Name in the catalog.
        options: `class_order` of Pascal Context, or the fields of `ShapesOptions`.

    Raises:
        DataError: Where there is no such data set, or it has no such option.
    """
    if name not in CATALOG:
        raise DataError(f"no data set {name!r}; there are: {', '.join(CATALOG)}")
    for option in options:
        if option not in _OPTIONS.get(name, ()):
            raise DataError(f"{option} is not an option of {name}")
    return CATALOG[name](**options)
