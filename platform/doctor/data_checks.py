"""Checks of the packed data: labels, digest, splits, overlap, baselines, classes."""

import itertools
import shlex
import time

import numpy as np

from ...datasets.packed.baselines import read_baselines
from ...datasets.packed.reader import PackedDataset
from ...datasets.spec import DataError
from ..config.errors import ConfigError
from ..config.schema import ExperimentConfig
from ..loading.data_checks import check_data, used_splits
from ..train.preparation import open_data
from .findings import Finding, fail, ok, skipped, warn
from .subject import Subject

SAMPLE_ROWS = 32
_DIGEST_SECONDS = 8.0
_MOST_ROWS = 200_000
_FEW_VALIDATION = 20
_TRIVIAL = 90.0
_PACK = "pack the data again (spikeseg data pack), and look at it (spikeseg data inspect)"


def _opened(subject: Subject) -> tuple[ExperimentConfig, PackedDataset] | Finding:
    """Experiment and data; the finding where there is nothing to look at."""
    if subject.config is None:
        return skipped("no recipe was named")
    if isinstance(subject.dataset, str):
        return skipped("the data cannot be opened")
    return subject.config, subject.dataset


def check_request(subject: Subject) -> Finding:
    """Recipe, fields and sweep can be read, and every field has a value that it may have."""
    if subject.refusal:
        return fail(subject.refusal, "mend the field, file or line that the sentence names")
    if subject.plan is not None:
        return ok(f"sweep {subject.plan.recipe.name}: {subject.plan.trials} trials")
    if subject.config is not None:
        return ok(f"recipe {subject.config.name}")
    return skipped("no recipe was named")


def check_data_opens(subject: Subject) -> Finding:
    """The packed data is there, whole, and fits the network's classes and channels."""
    if subject.config is None:
        return skipped("no recipe was named")
    try:
        dataset = open_data(subject.config)
        check_data(subject.config, dataset)
    except (ConfigError, OSError) as error:
        return fail(str(error), "name the packed folder in data.path=…, or pack it again")
    rows = ", ".join(f"{split} {count}" for split, count in dataset.splits.items())
    return ok(f"{dataset.name}: {rows} rows")


def check_labels(subject: Subject) -> Finding:
    """Labels of a sample of rows are classes, or the ignored label, and agree with the counts."""
    opened = _opened(subject)
    if isinstance(opened, Finding):
        return opened
    config, dataset = opened
    classes = len(dataset.label_space.classes)
    ignored = dataset.label_space.ignore_label
    looked = 0
    try:
        for split in used_splits(config, dataset):
            counted = np.asarray(dataset.class_pixels(split))
            for label in itertools.islice(dataset.shard_labels(split, 0), SAMPLE_ROWS):
                values = np.unique(label)
                wrong = values[(values >= classes) & (values != ignored)]
                if wrong.size:
                    return fail(
                        f"split {split!r} has label {wrong[0]}, classes are 0 to {classes - 1}, "
                        f"ignored is {ignored}",
                        _PACK,
                    )
                uncounted = [v for v in values if v != ignored and not counted[v]]
                if uncounted:
                    return fail(
                        f"split {split!r} has pixels of class {uncounted[0]}, and the manifest "
                        "counts none",
                        _PACK,
                    )
                looked += 1
    except DataError as error:
        return fail(str(error), _PACK)
    return ok(f"labels of {looked} sampled rows are among {classes} classes")


def check_digest(subject: Subject) -> Finding:
    """Files hash to what was packed: as many as can be read within some seconds."""
    opened = _opened(subject)
    if isinstance(opened, Finding):
        return opened
    _, dataset = opened
    if dataset.remote:
        return skipped("remote files are hashed when they are fetched")
    until, read, shards = time.monotonic() + _DIGEST_SECONDS, 0, 0
    total = sum(dataset.num_shards(split) for split in dataset.splits)
    for read, difference in enumerate(dataset.verify_each(), 1):
        if difference is not None:
            return fail(difference, "copy the packed folder again from where it is whole")
        shards = read
        if time.monotonic() > until:
            break
    return ok(f"{shards} of {total} files hash to what was packed; data {dataset.digest[:12]}")


def check_splits(subject: Subject) -> Finding:
    """Splits are large enough for a step and for a score that says something."""
    opened = _opened(subject)
    if isinstance(opened, Finding):
        return opened
    config, dataset = opened
    rows = {split: dataset.splits.get(split, 0) for split in ("train", "val", "test")}
    if not rows["train"] or not rows["val"]:
        return fail(f"train has {rows['train']} rows, val {rows['val']}: both are needed", _PACK)
    step = config.trainer.micro_batch_size * config.trainer.micro_batches
    if rows["train"] < step:
        return warn(
            f"train has {rows['train']} rows, a step takes {step}: the same row twice in a step",
            "a smaller trainer.micro_batch_size or trainer.micro_batches",
        )
    if rows["val"] < _FEW_VALIDATION:
        return warn(
            f"val has {rows['val']} rows: scores of two networks differ by chance",
            "more validation images, or several seeds",
        )
    if config.trainer.test and not rows["test"]:
        return warn("there is no test split: the score at the end is that of val", "a test split")
    return ok(", ".join(f"{split} {count}" for split, count in rows.items()))


def check_overlap(subject: Subject) -> Finding:
    """No image is in two splits."""
    opened = _opened(subject)
    if isinstance(opened, Finding):
        return opened
    _, dataset = opened
    if dataset.remote:
        return skipped("hashes of remote rows are not fetched")
    if sum(dataset.splits.values()) > _MOST_ROWS:
        return skipped(f"more than {_MOST_ROWS} rows; spikeseg data inspect looks at all")
    seen: dict[bytes, tuple[str, str]] = {}
    both: list[str] = []
    try:
        for split in dataset.splits:
            for row in dataset.columns(split, ["id", "image_hash"]):
                before = seen.setdefault(row["image_hash"], (split, row["id"]))
                if before[0] != split:
                    both.append(f"{row['id']} of {split} is {before[1]} of {before[0]}")
    except DataError as error:
        return fail(str(error), _PACK)
    if both:
        return warn(
            f"{len(both)} images are in two splits ({both[0]}): what is scored was learned",
            "take them out of one split and pack again",
        )
    return ok(f"{len(seen)} images, none in two splits")


def check_baselines(subject: Subject) -> Finding:
    """The image-blind baselines of val are known, and leave something to learn."""
    opened = _opened(subject)
    if isinstance(opened, Finding):
        return opened
    config, dataset = opened
    if "val" not in dataset.splits:
        return skipped("there is no split val")
    baselines = read_baselines(dataset, "val")
    if baselines is None:
        return warn(
            "this data was packed without image-blind baselines: no score can be compared",
            f"spikeseg data pack --upgrade {shlex.quote(str(config.data.path))}",
        )
    best = max(baselines.majority, baselines.position)
    if best > _TRIVIAL:
        return warn(
            f"a predictor that never looks at the image scores {best:.1f} mIoU on val",
            "see whether the classes are those that are meant",
        )
    return ok(f"image-blind mIoU on val: {best:.1f}")


def check_classes(subject: Subject) -> Finding:
    """Classes that are scored are learned too."""
    opened = _opened(subject)
    if isinstance(opened, Finding):
        return opened
    config, dataset = opened
    names = dataset.label_space.classes
    learned = dataset.class_pixels("train") if "train" in dataset.splits else [0] * len(names)
    for split in used_splits(config, dataset):
        if split == "train" or split not in dataset.splits:
            continue
        pixels = dataset.class_pixels(split)
        missing = [
            name
            for name, scored, seen in zip(names, pixels, learned, strict=True)
            if scored and not seen
        ]
        if missing:
            return warn(
                f"{split} has {len(missing)} classes that train never shows "
                f"({', '.join(missing[:3])})",
                "split the data again, by class",
            )
    return ok(f"{sum(map(bool, learned))} of {len(names)} classes are in train")
