"""Spaces: typed dimensions, conditions, grids, corners."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from spikeseg.platform.search.sweep_file.dimensions import Choices, Floats, Integers
from spikeseg.platform.search.sweep_file.space import Space


def space(**dimensions: Any) -> Space:
    return Space.model_validate({"dimensions": dimensions})


def drawn(of: Space, fixed: Mapping[str, Any]) -> dict[str, Any]:
    return of.draw(optuna.trial.FixedTrial(dict(fixed)))


def test_whole_numbers_make_integers_and_others_floats() -> None:
    kinds = space(
        a={"low": 1, "high": 4},
        b={"low": 1.0, "high": 4},
        c={"choices": [1, 2]},
        d={"low": 1, "high": 4, "kind": "float"},
        e={"low": 1, "high": 4, "step": 0.5},
    ).dimensions
    assert isinstance(kinds["a"], Integers)
    assert isinstance(kinds["b"], Floats)
    assert isinstance(kinds["c"], Choices)
    assert isinstance(kinds["d"], Floats)
    assert isinstance(kinds["e"], Floats)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"low": 4, "high": 1}, "low must not exceed high, got 4 and 1"),
        ({"low": 0.0, "high": 1.0, "log": True}, "low must be positive where log is true"),
        ({"low": 1, "high": 8, "log": True, "step": 2}, "step and log exclude each other"),
        ({"choices": []}, "at least 1 item"),
        ({"low": 1}, "required"),
        ({"choices": [1], "high": 3}, "Extra inputs"),
        ({"choices": [1, 2, 1]}, "choices must differ, got 1, 2, 1"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        space(a=entry)


def test_a_dimension_is_left_out_where_its_condition_fails() -> None:
    both = space(
        decay={"low": 0.0, "high": 1.0, "when": {"dynamics": "temporal"}},
        dynamics={"choices": ["stateless", "temporal"]},
    )
    assert list(both.dimensions) == ["dynamics", "decay"], "a condition's dimension comes first"
    assert drawn(both, {"dynamics": "stateless", "decay": 0.5}) == {"dynamics": "stateless"}
    assert drawn(both, {"dynamics": "temporal", "decay": 0.5}) == {
        "dynamics": "temporal",
        "decay": 0.5,
    }


def test_conditions_that_form_a_circle_are_refused() -> None:
    with pytest.raises(ValidationError, match="conditions form a circle: a -> b -> a"):
        space(a={"choices": [1], "when": {"b": 1}}, b={"choices": [1], "when": {"a": 1}})


def test_a_condition_on_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="when: b: is not in the space"):
        space(a={"choices": [1], "when": {"b": 1}})


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"levels": []}, "a: when: levels: needs at least one value"),
        ({"levels": 3}, r"a: when: levels: got 3: must be one of \[1, 2, 4\]"),
        ({"weight": 41.0}, r"a: when: weight: got 41.0: must be in \[5.0, 40.0\]"),
        ({"steps": 4}, r"got 4: must be a whole number in \[1, 8\] in steps of 2"),
        ({"only_one": 7, "only_two": 7}, "conditions exclude each other, it would never be drawn"),
    ],
    ids=["empty", "no choice", "out of range", "off the step", "parents exclude each other"],
)
def test_a_condition_that_cannot_hold_is_refused(when: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        space(
            a={"choices": [1], "when": when},
            levels={"choices": [1, 2, 4]},
            weight={"low": 5.0, "high": 40.0},
            steps={"low": 1, "high": 8, "step": 2},
            only_one={"choices": [7], "when": {"levels": 1}},
            only_two={"choices": [7], "when": {"levels": 2}},
        )


def test_a_condition_that_holds_by_a_later_value_is_accepted() -> None:
    corners = space(
        a={"choices": [5], "when": {"levels": [1, 2], "only_two": 7}},
        levels={"choices": [1, 2, 4]},
        only_two={"choices": [7], "when": {"levels": 2}},
    ).corner_points()
    assert ("a", 5, {"levels": 2, "only_two": 7, "a": 5}) in list(corners)


def test_a_grid_has_every_combination_once_and_respects_conditions() -> None:
    grid = space(
        kind={"choices": ["levels", "constant"]},
        constant={"choices": [4.0, 8.0], "when": {"kind": "constant"}},
        steps={"low": 1, "high": 5, "step": 2},
    ).grid()
    assert list(grid) == [
        {"kind": "levels", "steps": 1},
        {"kind": "levels", "steps": 3},
        {"kind": "levels", "steps": 5},
        {"kind": "constant", "constant": 4.0, "steps": 1},
        {"kind": "constant", "constant": 4.0, "steps": 3},
        {"kind": "constant", "constant": 4.0, "steps": 5},
        {"kind": "constant", "constant": 8.0, "steps": 1},
        {"kind": "constant", "constant": 8.0, "steps": 3},
        {"kind": "constant", "constant": 8.0, "steps": 5},
    ]


def test_a_grid_over_stepped_floats_includes_the_end() -> None:
    stepped = space(a={"low": 0.0, "high": 0.3, "step": 0.1})
    assert [point["a"] for point in stepped.grid()] == [0.0, 0.1, 0.2, 0.3]


def test_a_condition_on_a_stepped_float_holds_for_the_value_that_the_file_has() -> None:
    """Three steps of a tenth are 0.30000000000000004 in floats."""
    both = space(
        a={"low": 0.0, "high": 1.0, "step": 0.1},
        b={"choices": [1, 2], "when": {"a": [0.3, 0.1 + 0.2 + 0.4]}},
    )
    assert drawn(both, {"a": 0.1 + 0.2, "b": 2}) == {"a": 0.3, "b": 2}
    assert drawn(both, {"a": 0.7, "b": 2}) == {"a": 0.7, "b": 2}
    assert drawn(both, {"a": 0.4, "b": 2}) == {"a": 0.4}
    assert both.decode({"a": 0.1 + 0.2, "b": 2}) == {"a": 0.3, "b": 2}
    assert len(list(both.grid())) == 11 + 2


def test_all_points_are_known_where_no_range_is_continuous() -> None:
    few = space(a={"choices": [1, 2]}, b={"low": 1, "high": 8, "log": True, "when": {"a": 2}})
    assert few.few_points() == [{"a": 1}, *({"a": 2, "b": b} for b in range(1, 9))]
    one = space(a={"choices": [1, 2]}, b={"low": 0.5, "high": 0.5})
    assert one.few_points() == [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.5}]
    many = space(a={"choices": [1, 2]}, b={"low": 0.5, "high": 0.6, "when": {"a": 2}})
    assert many.few_points() is None
    assert many.branches() == [{"a": 1}, {"a": 2}]
    assert space(a={"low": 1, "high": 10_001}).branches() is None


@pytest.mark.parametrize(
    ("low", "high", "step", "value"),
    [(0.0, 1e6, 0.01, 146755.89), (1e10, 1e10 + 1, 0.1, 1e10 + 0.3)],
)
def test_a_value_on_a_step_is_known_however_fine_the_step(
    low: float, high: float, step: float, value: float
) -> None:
    fine = Floats(low=low, high=high, step=step)
    assert fine.broken_rule(fine.exact(value)) is None
    assert fine.broken_rule(value + step / 3) == f"must be in [{low}, {high}] in steps of {step}"


def test_a_condition_on_a_number_of_any_size_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"b: when: a: got 0\.7: a needs choices or a step"):
        space(a={"low": 0.5, "high": 1.0}, b={"choices": [1], "when": {"a": 0.7}})


def test_a_range_whose_end_is_on_no_step_is_drawn_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    trial = optuna.create_study().ask()
    space(a={"low": 1, "high": 9, "step": 3}, b={"low": 0.0, "high": 1.0, "step": 0.3}).draw(trial)
    ends: dict[str, Any] = {**trial.distributions}
    assert (ends["a"].high, ends["b"].high) == (7, 0.9)
    assert not recwarn.list


def test_what_a_condition_rules_out_is_not_combined() -> None:
    """Sixty fields of one of two decoders: the other one is a single point, at once."""
    fields = {f"f{n}": {"choices": [1, 2], "when": {"decoder": "query"}} for n in range(60)}
    both = space(decoder={"choices": ["fpn", "query"]}, **fields)
    corners = both.corner_combinations()
    assert next(corners) == {"decoder": "fpn"}
    assert next(corners) == {"decoder": "query", **dict.fromkeys(fields, 1)}
    assert both.few_points() is None
    with pytest.raises(ValueError, match="at most 100000 points, this one has more"):
        list(both.grid())


def test_a_grid_over_any_number_is_refused() -> None:
    with pytest.raises(ValueError, match="a: a grid needs choices or a step"):
        list(space(a={"low": 0.0, "high": 1.0}).grid())


def test_corner_points_make_conditions_true() -> None:
    corners = space(
        kind={"choices": ["levels", "constant"]},
        constant={"low": 4.0, "high": 8.0, "when": {"kind": "constant"}},
    ).corner_points()
    assert list(corners) == [
        ("kind", "levels", {"kind": "levels"}),
        ("kind", "constant", {"kind": "constant", "constant": 4.0}),
        ("constant", 4.0, {"kind": "constant", "constant": 4.0}),
        ("constant", 8.0, {"kind": "constant", "constant": 8.0}),
    ]


def test_of_a_number_with_few_values_every_one_is_checked_and_of_others_both_ends() -> None:
    corners = space(
        few={"low": 1, "high": 8, "step": 3},
        many={"low": 1, "high": 1000},
        stepped={"low": 0.0, "high": 0.5, "step": 0.25},
        any={"low": 0.0, "high": 1.0},
    ).corner_points()
    values: dict[str, list[Any]] = {}
    for path, value, _ in corners:
        values.setdefault(path, []).append(value)
    assert values == {
        "few": [1, 4, 7],
        "many": [1, 1000],
        "stepped": [0.0, 0.25, 0.5],
        "any": [0.0, 1.0],
    }


def test_lists_as_choices_come_back_from_optuna_as_lists() -> None:
    widths = space(dims={"choices": [[16, 32], [32, 64]]})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    point = widths.draw(trial)
    assert point["dims"] in ([16, 32], [32, 64])
    assert widths.decode(study.trials[0].params) == point
    assert widths.encode(point) == study.trials[0].params


def test_drawing_twice_from_one_trial_gives_the_same_point() -> None:
    numbers = space(a={"low": 0.0, "high": 1.0}, b={"low": 1, "high": 100, "log": True})
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3)).ask()
    assert numbers.draw(trial) == numbers.draw(trial)
