"""Which raw data sets can be packed."""

from .camvid import CamVid
from .shapes import Shapes
from .spec import RawDataset

CATALOG: dict[str, type[RawDataset]] = {"camvid": CamVid, "shapes": Shapes}
