"""Kinds of fields in words, names that lead to keys, whole numbers written as floats."""

import pytest

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.field_kinds import find_keys, nearest_keys
from spikeseg.platform.config.recipes import load_experiment
from spikeseg.platform.config.schema import ExperimentConfig


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("lr=0.1", "lr: no such field, did you mean 'optimizer.lr'?"),
        ("trainer.lr=0.1", "trainer.lr: no such field, did you mean 'optimizer.lr'?"),
        ("mask_wieght=3", "did you mean 'loss.mask_weight'?"),
        (
            "timesteps=1,2,4",
            "did you mean 'model.neuron.timesteps'? one run has one value; `spikeseg sweep` tries "
            "several: sweep.space.model.neuron.timesteps={choices: [1, 2, 4]}",
        ),
        (
            "model.neuron.levels=[2, 4]",
            "must be a whole number; one run has one value; `spikeseg sweep` tries several: "
            "sweep.space.model.neuron.levels={choices: [2, 4]}",
        ),
        ("data.transform.crop=64", "got 64: must be a list of 2 whole numbers"),
        ("data.transform.crop=[64]", "got [64]: must be a list of 2 whole numbers"),
        ("data.transform.crop=[1, 2, 3]", "got [1, 2, 3]: must be a list of 2 whole numbers"),
        ("optimizer=3", "optimizer: got 3: must be a section with fields: lr, weight_decay,"),
        ("optimizer.rules=3", "got 3: must be a list of sections"),
        ("tracking.tags=[a]", "must be a mapping of names to words"),
        ("trainer.test=7", "must be true or false"),
        ("trainer.max_steps=1.5e0", "got 1.5: must be a whole number"),
    ],
)
def test_a_wrong_name_or_shape_is_told_in_our_words(item: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("shapes_tiny", [item])
    assert sentence in str(caught.value)
    assert "Input should" not in str(caught.value)


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("trainer.max_steps=1e4", ("trainer", "max_steps"), 10_000),
        ("trainer.checkpoint_every=1e2", ("trainer", "checkpoint_every"), 100),
        ("data.transform.crop=[6.4e1, 64]", ("data", "transform", "crop"), (64, 64)),
    ],
)
def test_a_whole_number_may_have_an_exponent(
    item: str, key: tuple[str, ...], value: object
) -> None:
    node: object = load_experiment("shapes_tiny", [item]).config
    for part in key:
        node = getattr(node, part)
    assert node == value
    assert "float" not in str(type(node))


def test_values_of_a_field_that_takes_a_list_are_not_taken_for_a_sweep() -> None:
    with pytest.raises(ConfigError, match="box is given exactly when resize is 'range'") as caught:
        load_experiment("shapes_tiny", ["data.transform.box=[64, 128]"])
    assert "sweep" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"did you mean 'data\.transform\.crop'") as caught:
        load_experiment("shapes_tiny", ["crop=[64, 128]"])
    assert "sweep" not in str(caught.value)


def test_a_field_that_takes_fractions_keeps_them() -> None:
    config = load_experiment("shapes_tiny", ["optimizer.lr=1e0", "optimizer.clip_norm=2.0"]).config
    assert isinstance(config.optimizer.lr, float)
    assert isinstance(config.optimizer.clip_norm, float)


def test_a_name_leads_to_every_key_that_ends_with_it() -> None:
    assert find_keys(ExperimentConfig, "levels") == [
        "model.neuron.levels",
        "model.backbone.levels",
        "model.query.levels",
        "model.fpn.levels",
    ]
    assert find_keys(ExperimentConfig, "optimizer.lr") == ["optimizer.lr"]
    assert nearest_keys(ExperimentConfig, "warmup_step") == ["optimizer.warmup_steps"]
