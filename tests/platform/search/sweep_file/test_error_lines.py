"""Errors of a sweep's recipe name the line, or the command line, that they are about."""

from pathlib import Path

import pytest
from plans import load, refusal

from spikeseg.platform.search.sweep_file.dimensions import Floats, Integers


def at(folder: Path, text: str) -> str:
    """The place in `mine.yaml` of the first line that has a text."""
    lines = (folder / "mine.yaml").read_text().splitlines()
    return f"{folder / 'mine.yaml'}:{next(n for n, line in enumerate(lines, 1) if text in line)}: "


def test_the_first_value_of_a_later_dimension_is_named_with_its_own_line(tmp_path: Path) -> None:
    space = {
        "model.neuron.timesteps": {"choices": [1, 2]},
        "model.neuron.levels": {"low": 0, "high": 8},
    }
    text = refusal(tmp_path, space=space)
    assert text.startswith(at(tmp_path, "model.neuron.levels") + "model.neuron.levels: got 0")
    given = "sweep.space.model.neuron.levels={low: 0, high: 8}"
    space["model.neuron.levels"] = {"low": 1, "high": 8}
    assert refusal(tmp_path, given, space=space).startswith(
        "command line: model.neuron.levels: got 0"
    )


def test_rules_over_several_fields_name_the_one_that_they_are_about(tmp_path: Path) -> None:
    several = [
        {"metric": "val/mIoU", "direction": "maximize"},
        {"metric": "energy/mJ", "direction": "minimize"},
    ]
    text = refusal(tmp_path, objectives=several, pruner={"rule": "halving"})
    assert text.startswith(at(tmp_path, "rule: halving") + "pruner.rule: got 'halving'")
    assert refusal(tmp_path, "sweep.pruner.rule=halving", objectives=several).startswith(
        "command line: pruner.rule: got 'halving': needs one objective, got 2"
    )
    assert refusal(tmp_path, "sweep.trials=null").startswith("command line: trials: must be given")
    text = refusal(tmp_path, objectives=several[:1] * 2)
    assert text.startswith(at(tmp_path, "objectives:") + "objectives: must differ")


def test_a_condition_on_what_is_not_there_names_the_condition(tmp_path: Path) -> None:
    given = "sweep.space.model.neuron.levels.when={model.neuron.timesteps: 3}"
    text = refusal(tmp_path, given)
    assert text == (
        "command line: sweep.space: model.neuron.levels: when: model.neuron.timesteps: is not in "
        "the space"
    )


@pytest.mark.parametrize("overrides", [(), ("trainer.max_steps=200",)])
def test_a_base_that_is_not_there_is_named(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    text = refusal(tmp_path, *overrides, base="shapes_tin")
    assert text.startswith(at(tmp_path, "base:") + "base: recipe 'shapes_tin' is neither")
    assert "did you mean 'shapes_tiny'?" in text
    text = refusal(tmp_path, "sweep.base=shapes_tin", *overrides)
    assert text.startswith("command line: base: recipe 'shapes_tin' is neither")


def test_a_field_of_another_kind_of_dimension_is_refused_as_that(tmp_path: Path) -> None:
    text = refusal(tmp_path, space={"model.neuron.levels": {"choices": [1], "low": 1}})
    assert "space.model.neuron.levels.low: no field of the kind that is given here" in text


def test_the_command_line_can_add_a_dimension_and_a_condition(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        "sweep.space.loss.dice_weight={low: 1.0, high: 2.0}",
        "sweep.space.loss.dice_weight.when.model.neuron.levels=2",
    )
    added = plan.recipe.space.dimensions["loss.dice_weight"]
    assert isinstance(added, Floats) and added.when == {"model.neuron.levels": [2]}
    text = refusal(tmp_path, "sweep.space.model.neuron.level.low=1")
    assert text.startswith(
        "command line: sweep.space.model.neuron.level.low: no such dimension, did you mean "
        "'model.neuron.levels'?"
    )


def test_whole_numbers_for_a_field_that_takes_any_number_are_a_range_of_any(tmp_path: Path) -> None:
    space = {
        "loss.mask_weight": {"low": 5, "high": 40},
        "loss.dice_weight": {"kind": "int", "low": 1, "high": 4},
        "loss.class_weight": {"low": 1, "high": 4, "step": 1},
        "model.neuron.levels": {"low": 1, "high": 4},
    }
    drawn = load(tmp_path, space=space, first=[{"loss.mask_weight": 20.5}]).recipe.space.dimensions
    assert isinstance(drawn["loss.mask_weight"], Floats)
    assert isinstance(drawn["loss.dice_weight"], Integers)
    assert isinstance(drawn["loss.class_weight"], Floats)
    assert drawn["loss.class_weight"].listed() == [1.0, 2.0, 3.0, 4.0]
    assert isinstance(drawn["model.neuron.levels"], Integers)


@pytest.mark.parametrize("value", ["2", True, 2.5])
def test_a_value_of_another_type_than_the_field_is_refused(tmp_path: Path, value: object) -> None:
    text = refusal(tmp_path, space={"model.neuron.levels": {"choices": [1, value]}})
    assert f"model.neuron.levels: got {value!r}: must be a whole number" in text
