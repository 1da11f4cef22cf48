"""Writes every data set's raw layout with made-up content: two training and two validation rows."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from spikeseg.datasets.layouts.catalog import make_dataset
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.packed.plan import BadRowPolicy
from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.datasets.spec import LABEL_SPACES, load_label_space

SIZE = (24, 32)
SPLITS = {"train": ("a1", "a2"), "val": ("b1", "b2")}


@dataclass(frozen=True)
class Layout:
    """A raw data set on disk.

    Attributes:
        name: Name in the catalog.
        source: What `--source` gets.
        options: Options of its reader.
        labels: Per row id the train ids that must come out.
    """

    name: str
    source: Path
    options: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def write_image(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """A smooth colour picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BILINEAR).save(path)


def write_index(path: Path, values: np.ndarray, palette: bool = False) -> None:
    """An index label: grey 8-bit, grey 16-bit or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = image.convert("P")
        image.putdata(values.ravel().tolist())
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)


def index_values(path: Path) -> np.ndarray:
    """The numbers in an index label."""
    return np.array(Image.open(path))


def packed(
    layout: Layout, output: Path, policy: BadRowPolicy = "refuse", share: float = 0.5
) -> PackedDataset:
    """A layout packed by one thread, two rows a shard."""
    pack(
        layout.name,
        make_dataset(layout.name, layout.options),
        layout.source,
        output,
        rows_per_shard=2,
        on_bad_row=policy,
        max_bad_share=share,
        partial=True,
        workers=1,
    )
    return PackedDataset.open(output)


def raw_values(space: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw values of a label space in blocks, and their train ids."""
    table = load_label_space(space).raw_to_train
    generator = np.random.default_rng(seed)
    blocks = generator.choice(np.array(list(table)), (SIZE[0] // 4, SIZE[1] // 4))
    raw = np.kron(blocks, np.ones((4, 4), int))
    return raw, np.vectorize(table.__getitem__)(raw).astype(np.uint8)


def _cityscapes(root: Path, suffix: str) -> Layout:
    labels = {}
    for split, stems in SPLITS.items():
        for number, stem in enumerate(stems):
            city, full = root / "leftImg8bit" / split / "town", f"town_{stem}"
            write_image(city / f"{full}_leftImg8bit.png", number)
            raw, labels[full] = raw_values("cityscapes", ord(stem[0]) + number)
            if suffix == "instanceIds":
                values = raw.astype(np.uint16)
                person = values == 24
                values[person] = 24000 + np.arange(person.sum()) // 16
            else:
                values = raw.astype(np.uint8)
            write_index(root / "gtFine" / split / "town" / f"{full}_gtFine_{suffix}.png", values)
    return Layout(f"cityscapes{'_panoptic' * (suffix == 'instanceIds')}", root, labels=labels)


def _voc(root: Path, aug: bool) -> Layout:
    base, labels = root / "VOCdevkit" / "VOC2012", {}
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, stems in SPLITS.items():
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for number, stem in enumerate(stems):
            write_image(base / "JPEGImages" / f"{stem}.jpg", number)
            raw, labels[stem] = raw_values("pascal_voc12", ord(stem[0]) + number)
            path = base / "SegmentationClass" / f"{stem}.png"
            write_index(path, raw.astype(np.uint8), palette=True)
    if aug:
        (lists / "aug.txt").write_text("c1\nc2\n")
        for number, stem in enumerate(("c1", "c2")):
            write_image(base / "JPEGImages" / f"{stem}.jpg", 9 + number)
            raw, labels[stem] = raw_values("pascal_voc12", 70 + number)
            if number:
                write_index(base / "SegmentationClassAug" / f"{stem}.png", raw.astype(np.uint8))
                continue
            matlab = base.parent / "VOCaug" / "dataset" / "cls" / f"{stem}.mat"
            matlab.parent.mkdir(parents=True)
            savemat(matlab, {"GTcls": {"Segmentation": raw.astype(np.uint8)}})
    return Layout("pascal_voc12_aug" if aug else "pascal_voc12", root, labels=labels)


def _context(root: Path, classes: int, order: str) -> Layout:
    base, labels = root / "VOCdevkit" / "VOC2010", {}
    lists = base / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True)
    names = json.loads((LABEL_SPACES / "pascal_context_60.json").read_text())
    value = {name: index for index, name in enumerate(names["voc_first_order"])}
    for split, stems in SPLITS.items():
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for number, stem in enumerate(stems):
            write_image(base / "JPEGImages" / f"{stem}.jpg", number)
            raw, labels[stem] = raw_values(f"pascal_context_{classes}", ord(stem[0]) + number)
            if order == "voc_first":
                raw = np.vectorize(lambda v: value[names["classes"][v]])(raw)
            write_index(base / "SegmentationClassContext" / f"{stem}.png", raw.astype(np.uint8))
    return Layout(f"pascal_context_{classes}", root, {"class_order": order}, labels)


def _ade20k(root: Path, panoptic: bool) -> Layout:
    base, labels = root / "ADEChallengeData2016", {}
    space = load_label_space("ade20k")
    things = [index for index, thing in enumerate(space.is_thing or ()) if thing]
    for split, folder in (("train", "training"), ("val", "validation")):
        for number, stem in enumerate(SPLITS[split]):
            full = f"ADE_{split}_{stem}"
            write_image(base / "images" / folder / f"{full}.jpg", number)
            raw, label = raw_values("ade20k", ord(stem[0]) + number)
            write_index(base / "annotations" / folder / f"{full}.png", raw.astype(np.uint8))
            if panoptic:
                label[np.isin(label, things)] = 255
                colours = np.zeros((*SIZE, 3), np.uint8)
                colours[4:12, 4:20] = (3, 1, 0)
                colours[8:12, 12:20] = (3, 2, 0)
                label[4:12, 4:20] = things[2]
                path = base / "annotations_instance" / folder / f"{full}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(colours).save(path)
            labels[full] = label
    return Layout("ade20k_panoptic" if panoptic else "ade20k", root, labels=labels)


def _coco_stuff10k(root: Path) -> Layout:
    labels = {}
    (root / "imageLists").mkdir(parents=True)
    (root / "annotations").mkdir()
    for split, stems in SPLITS.items():
        names = [f"COCO_train2014_{stem}" for stem in stems]
        listing = "test" if split == "val" else "train"
        (root / "imageLists" / f"{listing}.txt").write_text("\n".join(names) + "\n")
        for number, name in enumerate(names):
            write_image(root / "images" / f"{name}.jpg", number)
            raw, labels[name] = raw_values("coco_stuff10k", ord(split[0]) + number)
            # Official files hold doubles: they come out of a look-up table.
            content = {"S": raw.astype(np.float64), "names": np.arange(182)}
            savemat(root / "annotations" / f"{name}.mat", content)
    return Layout("coco_stuff10k", root, labels=labels)


def _coco_stuff164k(root: Path) -> Layout:
    labels = {}
    for split, stems in SPLITS.items():
        for number, stem in enumerate(stems):
            write_image(root / "images" / f"{split}2017" / f"{stem}.jpg", number)
            raw, labels[stem] = raw_values("coco_stuff164k", ord(split[0]) + number)
            path = root / "annotations" / f"{split}2017" / f"{stem}.png"
            write_index(path, raw.astype(np.uint8))
            # What the published converter leaves beside them.
            write_index(path.with_name(f"{stem}_labelTrainIds.png"), labels[stem])
    return Layout("coco_stuff164k", root, labels=labels)


def _coco_panoptic(root: Path) -> Layout:
    labels = {}
    space = load_label_space("coco_panoptic")
    for split, stems in SPLITS.items():
        images, annotations = [], []
        folder = root / "annotations" / f"panoptic_{split}2017"
        folder.mkdir(parents=True)
        for number, stem in enumerate(stems):
            write_image(root / f"{split}2017" / f"{stem}.jpg", number)
            # Ids above 255 tell the channel order; category 1 is a thing and a crowd in one.
            ids = np.zeros(SIZE, np.int64)
            ids[2:, :] = 3_000_000 + number
            ids[6:12, 5:20] = 77
            ids[14:20, 5:20] = 513
            label = np.full(SIZE, 255, np.uint8)
            info = []
            for segment, category, crowd in ((3_000_000 + number, 200, 0), (77, 1, 0), (513, 1, 1)):
                label[ids == segment] = space.raw_to_train[category]
                area = int((ids == segment).sum())
                info.append(
                    {"id": segment, "category_id": category, "iscrowd": crowd, "area": area}
                )
            colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
            Image.fromarray(colours).save(folder / f"{stem}.png")
            images.append({"id": number, "file_name": f"{stem}.jpg"})
            annotations.append(
                {"image_id": number, "file_name": f"{stem}.png", "segments_info": info}
            )
            labels[stem] = label
        content = {"images": images, "annotations": annotations, "categories": []}
        (root / "annotations" / f"panoptic_{split}2017.json").write_text(json.dumps(content))
    return Layout("coco_panoptic", root, labels=labels)


def _camvid(root: Path) -> Layout:
    labels = {}
    for split, stems in {**SPLITS, "test": ("d1",)}.items():
        root.mkdir(parents=True, exist_ok=True)
        # The tutorial's own lists have two paths a line.
        lines = [
            f"/SegNet/CamVid/{split}/{s}.png /SegNet/CamVid/{split}annot/{s}.png" for s in stems
        ]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for number, stem in enumerate(stems):
            write_image(root / split / f"{stem}.png", number)
            raw, labels[stem] = raw_values("camvid", ord(stem[0]) + number)
            write_index(root / f"{split}annot" / f"{stem}.png", raw.astype(np.uint8))
    return Layout("camvid", root, labels=labels)


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    "ade20k": lambda root: _ade20k(root, False),
    "ade20k_panoptic": lambda root: _ade20k(root, True),
    "camvid": _camvid,
    "cityscapes": lambda root: _cityscapes(root, "labelIds"),
    "cityscapes_panoptic": lambda root: _cityscapes(root, "instanceIds"),
    "coco_panoptic": _coco_panoptic,
    "coco_stuff10k": _coco_stuff10k,
    "coco_stuff164k": _coco_stuff164k,
    "pascal_context_59": lambda root: _context(root, 59, "voc_first"),
    "pascal_context_60": lambda root: _context(root, 60, "alphabetical"),
    "pascal_voc12": lambda root: _voc(root, False),
    "pascal_voc12_aug": lambda root: _voc(root, True),
}
