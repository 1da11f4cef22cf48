"""What `config explain`, `config list` and `config schema` say is what the schema and files say."""

import jsonschema
import pytest

from spikeseg.platform.config.data_values import PICKED_KEYS
from spikeseg.platform.config.describe_fields import describe_fields
from spikeseg.platform.config.json_schema import make_recipe_schema
from spikeseg.platform.config.recipe_list import describe_recipe, find_settings, fit_sentences
from spikeseg.platform.config.recipes import RECIPES, recipe_names
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.config.yaml_source import read_yaml
from spikeseg.platform.search.sweep_file.plan import SWEEPS, sweep_names
from spikeseg.platform.search.sweep_file.sweep_list import (
    describe_sweep_fields,
    list_sweeps,
    make_sweep_schema,
)


def test_every_field_of_experiments_and_sweeps_has_a_meaning() -> None:
    fields = {**describe_fields(ExperimentConfig), **describe_sweep_fields()}
    assert len(fields) > 120
    assert not [key for key, item in fields.items() if not item.meaning]


def test_a_field_has_its_range_default_and_choices() -> None:
    fields = describe_fields(ExperimentConfig)
    assert fields["optimizer.lr"].rule == "> 0"
    assert fields["optimizer.lr"].default is None
    assert fields["data.shuffle_window"].default == "4096"
    assert fields["trainer.patience"].kind == "a whole number or null"
    assert fields["model.neuron.normalization"].kind == "one of: levels, none, constant"
    assert fields["data.transform.crop"].kind == "a list of 2 whole numbers"
    assert fields["model.neuron.decay"].default == "0.25"
    assert "model.neuron.timesteps" in fields["model.neuron"].below
    assert describe_sweep_fields()["sweep.sampler.startup"].default == "10"


def test_where_a_field_is_set_names_file_line_and_value() -> None:
    assert ("shapes_tiny.yaml", 1) in {
        (where.partition(":")[0], value) for where, _, value in find_settings("seed")
    }


def test_a_listed_recipe_begins_with_what_it_reached() -> None:
    line = describe_recipe("camvid_tiny")
    assert (line.data, line.size) == ("camvid", "120x160, 96 channels")
    assert line.takes == "3000 x 8"
    assert line.about.startswith("40.8 test mIoU for 24 CPU minutes")
    assert describe_recipe("own").takes == "as data x as data"
    assert [item.name for item in list_sweeps()] == sweep_names()


def test_a_text_is_cut_at_a_whole_sentence() -> None:
    assert fit_sentences("One. Two is longer.", 10) == "One."
    assert fit_sentences("Nothing here fits.", 10) == "Nothing..."


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_fits_the_schema_of_editors(name: str) -> None:
    content, _ = read_yaml(RECIPES / f"{name}.yaml")
    jsonschema.validate(content, make_recipe_schema(ExperimentConfig))


@pytest.mark.parametrize("name", sweep_names())
def test_a_shipped_sweep_fits_the_schema_of_editors(name: str) -> None:
    content, _ = read_yaml(SWEEPS / f"{name}.yaml")
    jsonschema.validate(content, make_sweep_schema())


@pytest.mark.parametrize(
    "content",
    [
        {"trainer": {"max_step": 3}},
        {"optimizer": {"lr": 0}},
        {"model": {"neuron": {"normalization": "L2"}}},
        {"seed": "from_data"},
    ],
)
def test_the_schema_refuses_what_the_platform_refuses(content: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, make_recipe_schema(ExperimentConfig))


def test_the_schema_lets_the_data_decide_exactly_what_it_can() -> None:
    schema = make_recipe_schema(ExperimentConfig)
    for key in PICKED_KEYS:
        content: object = "from_data"
        for part in reversed(key.split(".")):
            content = {part: content}
        jsonschema.validate(content, schema)
