"""What packed data says of itself that makes a training senseless: refused before it starts."""

from collections.abc import Iterator

from ...datasets.packed.reader import PackedDataset
from ..config.errors import ConfigError
from ..config.phases import list_phases
from ..config.schema import ExperimentConfig

STRIDE = 16
"""The network's coarsest stride: what it sees must have a position there."""


def check_data(config: ExperimentConfig, dataset: PackedDataset) -> None:
    """Refuse an experiment that its data makes senseless; only the manifest is asked.

    Raises:
        ConfigError: Names the field, the split and the rule.
    """
    _require_labels(config, dataset)
    _require_one_ignore_label(config, dataset)
    _require_batch_statistics(config)
    _require_positions(config, dataset)


def used_splits(config: ExperimentConfig, dataset: PackedDataset) -> Iterator[str]:
    """Splits that a training reads: test only where it is scored at the end, and has rows."""
    yield from ("train", "val")
    if config.trainer.test and dataset.splits.get("test"):
        yield "test"


def _require_labels(config: ExperimentConfig, dataset: PackedDataset) -> None:
    where = f"data.path: {config.data.path}"
    names = dataset.label_space.classes
    seen = {split: dataset.class_pixels(split) for split in used_splits(config, dataset)}
    for split, pixels in seen.items():
        if not any(pixels):
            raise ConfigError(
                f"{where}: split {split!r} has no labelled pixel, every one is ignored: a score "
                "on it would be no number; look at the labels (`spikeseg data inspect`)"
                + ("; trainer.test=false leaves it out" if split == "test" else "")
            )
    learned = [name for name, count in zip(names, seen["train"], strict=True) if count]
    if config.data.task == "semantic" and len(learned) == 1 and len(names) > 1:
        raise ConfigError(
            f"{where}: split 'train' has pixels of one class only ({learned[0]}) of the model's "
            f"{len(names)}: there is nothing to tell apart"
        )
    for split in ("val", "test"):
        scored = [n for n, count in zip(names, seen.get(split, ()), strict=False) if count]
        if scored and not set(scored) & set(learned):
            raise ConfigError(
                f"{where}: split {split!r} has none of the classes of split 'train' "
                f"({', '.join(scored[:5])} against {', '.join(learned[:5])}): nothing that is "
                "learned would be scored"
            )


def _require_one_ignore_label(config: ExperimentConfig, dataset: PackedDataset) -> None:
    ignored = dataset.label_space.ignore_label
    for key, value in (
        ("data.transform.ignore_label", config.data.transform.ignore_label),
        ("loss.ignore_label", config.loss.ignore_label),
    ):
        if value != ignored:
            means = (
                f", which is class {dataset.label_space.classes[value]} here"
                if 0 <= value < len(dataset.label_space.classes)
                else ""
            )
            raise ConfigError(
                f"{key}: {value}{means}, but pixels of {config.data.path} that are ignored have "
                f"{ignored}: padding, loss and scores must ignore the same label"
            )


def _require_batch_statistics(config: ExperimentConfig) -> None:
    """BatchNorm takes a mean over more than one value of a channel, in every phase."""
    trainer = config.trainer
    images = trainer.micro_batch_size
    if trainer.batch_norm == "synchronized":
        images *= trainer.micro_batches
    phases = list_phases(config.data.transform, config.data.phases, trainer.max_steps)
    for number, phase in enumerate(phases):
        last = number == len(phases) - 1
        key = "data.transform.crop" if last else f"data.phases.{number}.transform.crop"
        height, width = phase.transform.crop
        # Time steps are laid beside images before a norm.
        values = images * config.model.neuron.timesteps
        values *= -(-height // STRIDE) * -(-width // STRIDE)
        if values < 2:
            raise ConfigError(
                f"trainer.micro_batch_size: {images} with {key} {height} x {width} leaves "
                f"BatchNorm one value of each channel at stride {STRIDE}, and a mean needs two: "
                f"set trainer.micro_batch_size=2, or a crop of more than {STRIDE} pixels"
            )


def _require_positions(config: ExperimentConfig, dataset: PackedDataset) -> None:
    """Images that enter whole are at least as large as the stride; known of local data."""
    if config.data.transform.test_box is not None or "://" in dataset.path:
        return
    for split in used_splits(config, dataset):
        if split == "train":  # crops are padded
            continue
        for row in dataset.columns(split, ["id", "height", "width"]):
            if min(row["height"], row["width"]) < STRIDE:
                raise ConfigError(
                    f"data.path: {config.data.path}: split {split!r}: row {row['id']!r} is "
                    f"{row['height']} x {row['width']} pixels, each side needs at least {STRIDE}; "
                    "data.transform.test_box=[HEIGHT,WIDTH] enlarges images"
                )
