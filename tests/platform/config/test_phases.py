"""Phases of a transform: where they begin, what they change, what they cost; wrong ones named."""

from pathlib import Path
from typing import Any

import pytest

from spikeseg.datasets.transforms import TransformConfig
from spikeseg.platform.config.phases import (
    Phase,
    TransformPhase,
    cost_before,
    list_phases,
    phase_at,
)
from spikeseg.platform.config.recipes import (
    ConfigError,
    config_digest,
    dump,
    load_experiment,
    load_resolved,
    override,
)

LAST = TransformConfig(crop=(240, 320), resize="range", box=(240, 320), ratio_range=(0.85, 1.75))


def phases(*items: dict[str, Any], max_steps: int = 100) -> list[Phase]:
    return list_phases(LAST, [TransformPhase.model_validate(item) for item in items], max_steps)


def test_a_phase_changes_the_fields_it_names_until_its_step() -> None:
    small = {"crop": [120, 160], "box": [120, 160], "ratio_range": [0.85, 1.5]}
    first, middle, last = phases(
        {"until": 0.25, "transform": small}, {"until": 40, "transform": {"flip": 0.0}, "cost": 2.0}
    )
    assert (first.first, middle.first, last.first) == (0, 25, 40)
    assert first.transform.crop == first.transform.box == (120, 160)
    assert first.transform.ratio_range == (0.85, 1.5)
    assert first.transform.flip == last.transform.flip == 0.5
    assert (middle.transform.flip, middle.transform.crop) == (0.0, (240, 320))
    assert last.transform is LAST
    # A quarter of the pixels, as told, and the measure itself.
    assert (first.cost, middle.cost, last.cost) == (0.25, 2.0, 1.0)
    for step, phase in ((0, first), (24, first), (25, middle), (39, middle), (40, last)):
        assert phase_at([first, middle, last], step) is phase


def test_cost_adds_up_over_phases() -> None:
    listed = phases({"until": 25, "cost": 0.25}, {"until": 40, "cost": 2.0})
    expected = {0: 0, 10: 2.5, 25: 6.25, 30: 16.25, 40: 36.25, 100: 96.25}
    assert {step: cost_before(listed, step) for step in expected} == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[{until: 5000}]", r"phases.0.until: 5000 is step 5000, .* before trainer.max_steps"),
        ("[{until: 1.0}]", r"phases.0.until: 1.0 is step 3000"),
        ("[{until: 0.7}, {until: 0.5}]", r"phases.1.until: 0.5 is step 1500, .* after step 2100"),
        ("[{until: 9, transform: {crp: 1}}]", r"phases.0.transform.crp: "),
        ("[{until: 9, transform: {crop: [4, 32]}}]", r"transform.crop: crop must be at least 16"),
        ("[{until: 9, transform: {resize: none}}]", r"transform.box: box is given exactly when"),
        ("[{until: 9, transform: {test_box: [60, 80]}}]", r"transform.test_box: it is also the ev"),
        ("[{untl: 9}]", r"phases.0.untl: no such field, did you mean 'until'"),
    ],
)
def test_a_phase_that_cannot_be_is_named(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_experiment("camvid_fpn_tiny", [f"data.phases={value}"])
    assert str(caught.value).startswith("command line: data.phases.")


def test_a_phase_in_a_file_is_named_by_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    lines = [
        "extends: [camvid_fpn_tiny]",
        "data:",
        "  phases:",
        "    - until: 0.5",
        "    - until: 9",
    ]
    recipe.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"mine.yaml:5: data.phases.1.until: 9 is step 9"):
        load_experiment(str(recipe))


def test_phases_and_jitter_are_written_and_read_back() -> None:
    jitter = "{brightness: 0.3, gamma: 0.4, gamma_probability: 0.3}"
    given = [
        "data.phases=[{until: 0.5, transform: {crop: [60, 80]}}]",
        "data.transform.brightness=0",
    ]
    resolved = load_experiment("camvid_fpn_tiny", [*given, f"data.transform.jitter={jitter}"])
    assert load_resolved(dump(resolved.config)).config == resolved.config
    # And survive that another value is changed, as a trial of a sweep does.
    changed = override(resolved, {"data.transform.jitter.gamma": 0.1}, "sweep").config
    assert changed.data.phases == resolved.config.data.phases
    assert changed.data.transform.jitter is not None
    assert (changed.data.transform.jitter.gamma, changed.data.transform.jitter.brightness) == (
        0.1,
        0.3,
    )


def test_later_fields_leave_digests_as_they_were_until_they_are_used() -> None:
    # As version 0.1 names it.
    assert config_digest(load_experiment("camvid_sdtv2", ["data.path=/a"]).config).startswith(
        "06ce751c204d"
    )
    plain = load_experiment("ade20k_sdtv2", ["data.path=/a"])
    assert config_digest(plain.config).startswith("da4fd7bb9a50")
    changes = {"data.transform.photometric": False, "model.query.num_queries": 150}
    plain = override(plain, changes, "test")
    used = {
        "data.phases": [{"until": 0.5}],
        "data.transform.jitter": {},
        "data.transform.version": 2,
        "loss.lovasz_weight": 0.5,
        "model.query.matching": "class",
        "optimizer.decay": "cosine",
        "optimizer.decay_vectors": False,
        "optimizer.decay_over": "cost",
        "trainer.ema_start": "ramp",
    }
    wide = {"model.in_channels": 2, "data.transform.mean": [1, 2], "data.transform.std": [1, 2]}
    digests = {
        config_digest(override(plain, {key: value}, "test").config) for key, value in used.items()
    }
    digests.add(config_digest(override(plain, wide, "test").config))
    smaller = {"data.transform.version": 2, "data.transform.decode": "reduced"}
    digests.add(config_digest(override(plain, smaller, "test").config))
    assert len(digests | {config_digest(plain.config)}) == 12
