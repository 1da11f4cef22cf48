"""The published recipes hold the published numbers, and fit data set and model."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from spikeseg.datasets.layouts.catalog import CATALOG
from spikeseg.datasets.spec import load_label_space
from spikeseg.platform.config.recipes import load_experiment, recipe_names
from spikeseg.platform.train.optimizer import build_optimizer
from spikeseg.platform.train.preparation import build_seeded_model
from spikeseg.platform.train.schedule import learning_rate_factor

PARTS = {
    "cityscapes_edges",
    "published",
    "sdtv2",
    "sdtv3",
    "short_edges",
    "tiny",
    "voc_range",
}
# Batch over 8 GPUs, steps, classes, T, base rate, crop: the published table.
PUBLISHED = {
    "ade20k_sdtv2": (48, 160000, 150, 1, 1e-3, (512, 512)),
    "ade20k_sdtv3": (96, 160000, 150, 1, 1e-3, (512, 512)),
    "cityscapes_sdtv2": (64, 90000, 19, 1, 1e-3, (512, 1024)),
    "cityscapes_sdtv3": (64, 90000, 19, 1, 2e-3 * 64 / 48, (512, 1024)),
    "coco_stuff10k_sdtv2": (128, 160000, 171, 4, 1e-3, (512, 512)),
    "coco_stuff164k_sdtv2": (128, 320000, 171, 4, 1e-3, (512, 512)),
    "pascal_voc12_sdtv2": (64, 120000, 21, 1, 1e-3, (512, 512)),
    "pascal_voc12_sdtv3": (128, 160000, 21, 1, 1e-3, (512, 512)),
}
SPACES = {
    "ade20k_panoptic": "ade20k",
    "cityscapes_panoptic": "cityscapes",
    "pascal_voc12_aug": "pascal_voc12",
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_recipes_have_the_published_numbers(name: str) -> None:
    batch, steps, classes, timesteps, rate, crop = PUBLISHED[name]
    config = load_experiment(name).config
    trainer = config.trainer
    assert trainer.micro_batch_size * trainer.micro_batches == batch
    assert trainer.micro_batches == trainer.workers == 8
    assert trainer.max_steps == steps
    assert config.model.num_classes == classes
    assert config.model.neuron.timesteps == timesteps
    assert config.optimizer.lr == pytest.approx(rate, rel=1e-4)
    assert config.data.transform.crop == crop
    assert config.loss.class_cost == (2.0 if name.endswith("sdtv3") else 1.0)
    # The corrected decay ends where training does.
    end = learning_rate_factor(steps - 1, config.optimizer, steps)
    assert end == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", sorted(set(recipe_names()) - PARTS - {"own"}))
def test_a_recipe_has_the_classes_of_its_data_set(name: str) -> None:
    config = load_experiment(name).config
    data = Path(config.data.path).name
    assert data in CATALOG
    space = load_label_space(SPACES.get(data, data))
    assert config.model.num_classes == len(space.classes)


def test_short_edges_are_those_of_the_published_scales() -> None:
    ade20k = load_experiment("ade20k_sdtv2").config.data.transform
    assert ade20k.short_edges == tuple(int(640 * k / 10) for k in range(5, 21))
    cityscapes = load_experiment("cityscapes_sdtv2").config.data.transform
    assert cityscapes.short_edges == tuple(int(1024 * 0.1 * k) for k in range(5, 21))


def test_published_values_that_were_corrected_can_be_given() -> None:
    config = load_experiment(
        "cityscapes_sdtv2", ["optimizer.decay_steps=160000", "model.num_classes=150"]
    ).config
    left = learning_rate_factor(90000, config.optimizer, 90000)
    assert left == pytest.approx(0.44, abs=0.005)
    assert config.model.num_classes == 150


@pytest.mark.parametrize(
    ("name", "parameters"), [("ade20k_sdtv2", 34_361_112), ("ade20k_sdtv3", 38_236_408)]
)
def test_golden_published_models_have_the_published_number_of_parameters(
    name: str, parameters: int
) -> None:
    model = build_seeded_model(load_experiment(name).config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_golden_parameter_groups_are_the_published_ones(shared_folder: Path) -> None:
    with (shared_folder / "reference" / "param_groups_sdtv2_ade20k.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    expected = Counter((float(row["lr"]), float(row["weight_decay"])) for row in rows)
    config = load_experiment("ade20k_sdtv2").config
    optimizer = build_optimizer(build_seeded_model(config), config.optimizer)
    found = {
        (round(group["base_lr"], 9), group["weight_decay"]): len(group["params"])
        for group in optimizer.param_groups
    }
    assert found == expected == {(1e-3, 0.005): 575, (1e-4, 0.005): 424, (1e-3, 0.0): 3}
