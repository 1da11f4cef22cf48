"""Errors of configurations over any model: origin, key, value, rule, nearest name."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from spikeseg.platform.config.errors import ConfigError, known_fields, validate_tree
from spikeseg.platform.config.recipes import split_override


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Words(Model):
    kind: Literal["words"] = "words"
    words: list[str]


class Numbers(Model):
    kind: Literal["numbers"] = "numbers"
    low: int
    high: int

    @model_validator(mode="after")
    def _ordered(self) -> "Numbers":
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got {self.low} and {self.high}")
        return self


@dataclass(frozen=True, kw_only=True)
class Plain:
    width: int = 1


class Tree(Model):
    size: float = Field(default=1.0, gt=0)
    plain: Plain = Plain()
    entries: dict[str, Annotated[Words | Numbers, Field(discriminator="kind")]] = {}

    @model_validator(mode="after")
    def _small(self) -> "Tree":
        if self.plain.width > self.size:
            raise ValueError(f"plain.width must be at most size, got {self.plain.width}")
        if self.size == 7:
            raise ValueError("size: entries: must not be seven")
        return self


ORIGINS = {"size": "a.yaml:1", "plain": "a.yaml:2", "entries.x.y": "a.yaml:4"}


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ({"size": -1}, "a.yaml:1: size: got -1: must be greater than 0"),
        ({"siz": 1}, "a.yaml: siz: no such field, did you mean 'size'?"),
        ({"qqq": 1}, "a.yaml: qqq: no such field; known here: size, plain, entries"),
        ({"plain": {"widht": 1}}, "a.yaml:2: plain.widht: no such field, did you mean 'width'?"),
        (
            {"plain": {"width": 3}},
            "a.yaml:2: plain.width: got 3: plain.width must be at most size, got 3",
        ),
        ({"size": 7}, "a.yaml:1: size: entries: must not be seven"),
        (
            {"entries": {"x.y": {"kind": "numbers", "low": 1}}},
            "a.yaml:4: entries.x.y.high: required, and not given",
        ),
        (
            {"entries": {"x.y": {"kind": "words", "words": [], "low": 1}}},
            "a.yaml:4: entries.x.y.low: no field of the kind that is given here",
        ),
        (
            {"entries": {"x.y": {"kind": "numbers", "low": 3, "high": 1}}},
            "a.yaml:4: entries.x.y.low: got 3: low must not exceed high, got 3 and 1",
        ),
    ],
)
def test_a_fault_is_one_sentence_with_origin_key_value_and_rule(
    tree: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_tree(Tree, tree, ORIGINS, source="a.yaml")
    assert str(caught.value) == sentence


def test_every_fault_has_its_own_line() -> None:
    with pytest.raises(ConfigError) as caught:
        validate_tree(Tree, {"size": "a", "plain": 3}, ORIGINS, source="a.yaml")
    assert [line.partition(" ")[0] for line in str(caught.value).splitlines()] == [
        "a.yaml:1:",
        "a.yaml:2:",
    ]


def test_a_rule_over_a_section_is_blamed_on_the_command_line_that_gave_a_part_of_it() -> None:
    origins = ORIGINS | {"plain.width": "command line"}
    with pytest.raises(ConfigError, match=r"^command line: plain: got 3"):
        validate_tree(Tree, {"plain": 3}, {"plain.width": "command line"}, source="a.yaml")
    with pytest.raises(ConfigError, match=r"^command line: plain\.width: got 3"):
        validate_tree(Tree, {"plain": {"width": 3}}, origins, source="a.yaml")


def test_fields_of_a_union_are_those_of_all_its_models() -> None:
    assert list(known_fields(Tree, ["entries", "x"])) == ["kind", "words", "low", "high"]


@pytest.mark.parametrize("item", ["seed", "=3", ""])
def test_an_item_of_another_form_is_refused_with_its_origin(item: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_override(item, "mine.yaml:4")
    assert str(caught.value) == f"mine.yaml:4: {item!r} is not of the form field=value"
