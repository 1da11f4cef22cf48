"""`spikeseg config` and misspelt verbs, as a person types them."""

import json

import pytest
from command import spikeseg

Capture = pytest.CaptureFixture[str]


def test_explain_takes_the_end_of_a_key(capsys: Capture) -> None:
    ran = spikeseg(capsys, "config", "explain", "lr")
    assert ran.code == 0
    assert ran.out.startswith("optimizer.lr: Base learning rate.\n")
    assert "takes    a number, > 0" in ran.out
    assert "set in   tiny.yaml:" in ran.out


def test_explain_names_the_nearest_field(capsys: Capture) -> None:
    ran = spikeseg(capsys, "config", "explain", "mask_wieght")
    assert ran.code == 2
    assert "did you mean 'mask_weight'?" in ran.err


def test_the_list_has_a_line_a_recipe_and_sweep_below_160_characters(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "158")
    lines = spikeseg(capsys, "config", "list").out.splitlines()
    assert any(line.startswith("camvid_tiny ") and "40.8 test mIoU" in line for line in lines)
    assert any(line.startswith("demo ") and "6 trials, 4 fields" in line for line in lines)
    assert max(map(len, lines)) < 160


def test_the_schema_is_json(capsys: Capture) -> None:
    assert json.loads(spikeseg(capsys, "config", "schema").out)["properties"]["extends"]
    assert json.loads(spikeseg(capsys, "config", "schema", "--sweep").out)["properties"]["space"]


def test_a_sweep_is_checked_and_shown_as_a_recipe_is(capsys: Capture) -> None:
    ran = spikeseg(capsys, "config", "check", "demo")
    assert (ran.code, ran.out.partition(",")[0]) == (0, "demo: valid")
    assert "startup: 10" in spikeseg(capsys, "config", "show", "demo").out
    wrong = spikeseg(capsys, "config", "check", "demo", "sweep.sampler.name=best")
    assert wrong.code == 2
    assert "sampler.name: got 'best'" in wrong.err


@pytest.mark.parametrize(
    ("words", "near"),
    [(("trian",), "train"), (("config", "lst"), "list"), (("data", "pak"), "pack")],
)
def test_a_misspelt_verb_names_the_nearest(
    words: tuple[str, ...], near: str, capsys: Capture
) -> None:
    ran = spikeseg(capsys, *words)
    assert ran.code == 2
    assert f"no such command {words[-1]!r}, did you mean {near!r}?" in ran.err
