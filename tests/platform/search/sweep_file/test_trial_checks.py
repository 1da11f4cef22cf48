"""What trials would refuse is refused before any of them starts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from plans import load

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.model.config import ModelConfig
from spikeseg.model.neuron.kinds import find_neurons
from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.search import sweep as tuner
from spikeseg.platform.search.sweep_file.plan import load_sweep, sweep_names
from spikeseg.platform.train import preparation as setup


def refused(folder: Path, *overrides: str, **changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        tuner.check_trials(load(folder, *overrides, **changes))
    return str(caught.value)


@pytest.mark.parametrize("name", sweep_names())
def test_no_trial_of_a_shipped_sweep_would_refuse_to_train(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as its data is there."""
    monkeypatch.setattr(setup, "open_data", lambda config: None)
    monkeypatch.setattr(setup, "check_data", lambda config, dataset: None)
    tuner.check_trials(load_sweep(name))


def test_a_model_that_cannot_be_built_is_refused_with_key_and_value(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: ModelConfig) -> None:
        raise ValueError(f"no width {config.query.width}")

    monkeypatch.setattr(setup, "build_uncalibrated_segmentor", build)
    text = refused(
        tmp_path, f"data.path={data}", space={"model.query.width": {"choices": [64, 32]}}
    )
    assert text == "space: model.query.width: got 64: no width 64"


def test_a_backend_that_cannot_run_is_refused_with_the_rest(tmp_path: Path, data: Path) -> None:
    space = {"model.neuron.backend": {"choices": ["torch", "cuda"]}}
    text = refused(tmp_path, f"data.path={data}", "trainer.device=cpu", space=space)
    assert text.startswith("space: model.neuron.backend: got 'cuda': ") and " on cpu" in text


def test_a_score_over_categories_needs_data_that_has_them(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objectives = [{"metric": "val/category_mIoU", "direction": "maximize"}]
    text = refused(tmp_path, f"data.path={data}", objectives=objectives)
    assert text == (
        "objectives.0.metric: got 'val/category_mIoU': needs a label space with categories, and "
        "that of the base's data has none"
    )
    dataset = PackedDataset.open(data)
    dataset.label_space = dataclasses.replace(dataset.label_space, categories=("any",) * 9)
    monkeypatch.setattr(tuner, "open_data", lambda config: dataset)
    tuner.check_trials(load(tmp_path, f"data.path={data}", objectives=objectives))


def test_weights_and_classes_that_do_not_fit_are_refused(tmp_path: Path, data: Path) -> None:
    given = f"data.path={data}"
    missing = tmp_path / "none.pth"
    text = refused(tmp_path, given, space={"init.backbone": {"choices": [None, str(missing)]}})
    assert text.startswith(f"space: init.backbone: got '{missing}': init.backbone: {missing}: no")
    text = refused(tmp_path, given, f"init.segmentor={missing}")
    assert text.startswith(f"init.segmentor: {missing}: no such file")
    text = refused(tmp_path, given, space={"model.num_classes": {"choices": [9, 5]}})
    assert text.startswith("space: model.num_classes: got 5: model.num_classes: 5, but ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_refusal_is_about_the_field_that_it_names(tmp_path: Path, data: Path) -> None:
    space = {
        "model.neuron.levels": {"choices": [1, 2]},
        "trainer.device": {"choices": ["cuda"]},
    }
    text = refused(tmp_path, f"data.path={data}", space=space)
    assert text.startswith("space: trainer.device: got 'cuda': ")


def test_a_rule_of_the_optimizer_that_only_some_models_meet_is_refused(
    tmp_path: Path, data: Path
) -> None:
    text = refused(
        tmp_path, f"data.path={data}", space={"model.decoder": {"choices": ["query", "fpn"]}}
    )
    assert text.startswith("optimizer.rules: no parameter's name matches ")
    assert text.endswith(" (a trial with model.decoder: 'fpn')")


def test_a_value_inside_of_a_range_that_the_model_refuses_is_found(tmp_path: Path) -> None:
    space = {"model.query.num_heads": {"low": 4, "high": 8, "step": 1}}
    with pytest.raises(ConfigError, match=r"model\.query\.num_heads.*5"):
        load(tmp_path, space=space)


def test_a_fixed_point_that_the_network_refuses_is_found_before_the_start(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its values is fine in the corners; only together they are not."""

    def build(config: ModelConfig) -> torch.nn.Module:
        if (config.neuron.timesteps, config.neuron.levels) == (2, 4):
            raise ValueError("2 steps of 4 levels do not go together")
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(setup, "build_uncalibrated_segmentor", build)
    monkeypatch.setattr(setup, "build_optimizer", lambda model, config: None)
    steps, levels = "model.neuron.timesteps", "model.neuron.levels"
    space = {steps: {"choices": [1, 2]}, levels: {"choices": [1, 4]}}
    for name, points in (("listed", [{steps: 1, levels: 1}, {steps: 2, levels: 4}]), ("grid", [])):
        text = refused(
            tmp_path,
            f"data.path={data}",
            space=space,
            first=points,
            trials=None,
            sampler={"name": name, "seed": 1},
        )
        assert "2 steps of 4 levels do not go together" in text, name


def test_the_sweep_over_parts_gives_each_part_its_own_levels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = load_sweep("parts_camvid")
    monkeypatch.setattr(setup, "open_data", lambda config: None)
    monkeypatch.setattr(setup, "check_data", lambda config, dataset: None)
    seen = set()
    for point in plan.points:
        model = setup.check_parts(plan.experiment(point).config)
        parts = [
            {neuron.levels for name, neuron in find_neurons(model) if name.startswith(part)}
            for part in ("backbone", "decode_head.pixel_decoder", "decode_head.transformer_decoder")
        ]
        assert parts == [
            {point["model.backbone.levels"]},
            {point["model.query.pixel_levels"]},
            {point["model.query.levels"]},
        ]
        seen.add(str(parts))
    assert len(seen) == 8, "every combination of D = 1 and D = 4"
