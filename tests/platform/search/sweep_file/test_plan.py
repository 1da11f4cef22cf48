"""A sweep that cannot work is refused before any trial, with place, value and rule."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from plans import BASE, load, refusal

from spikeseg.platform.config.recipes import ConfigError
from spikeseg.platform.search.sweep_file.plan import load_sweep, sweep_names
from spikeseg.platform.search.trials.trial_training import failure_reason
from spikeseg.platform.train.failure import NonFiniteError, OutOfMemoryForGoodError


@pytest.mark.parametrize("name", sweep_names())
def test_every_shipped_sweep_is_valid(name: str) -> None:
    plan = load_sweep(name)
    assert plan.recipe.name == name
    assert plan.trials >= 1


def test_a_field_that_does_not_exist_is_named_with_its_line_and_the_nearest(
    tmp_path: Path,
) -> None:
    text = refusal(tmp_path, space={"model.neuron.level": {"choices": [1, 2]}})
    assert "mine.yaml:" in text
    assert "model.neuron.level: no such field, did you mean 'levels'?" in text


def test_a_choice_that_the_model_refuses_is_named_with_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    changes = BASE | {"space": {"model.neuron.levels": {"choices": [1, 0]}}}
    path.write_text(yaml.safe_dump(changes, sort_keys=False, default_flow_style=False))
    line = path.read_text().splitlines().index("    - 0") + 1
    with pytest.raises(ConfigError) as caught:
        load_sweep(str(path))
    assert f"mine.yaml:{line}: " in str(caught.value)
    assert "levels must be at least 1, got 0" in str(caught.value)


def test_the_end_of_a_range_that_the_model_refuses_is_found(tmp_path: Path) -> None:
    text = refusal(tmp_path, space={"model.neuron.decay": {"low": 0.5, "high": 1.5}})
    assert "decay must be in [0, 1], got 1.5" in text


def test_values_that_only_together_are_refused_are_found(tmp_path: Path) -> None:
    text = refusal(
        tmp_path,
        space={
            "model.neuron.normalization": {"choices": ["levels", "constant"]},
            "model.neuron.normalization_constant": {"choices": [None, 8.0]},
        },
    )
    assert "normalization_constant is given exactly when normalization is 'constant'" in text


def test_a_conditional_constant_is_accepted(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        space={
            "model.neuron.normalization": {"choices": ["levels", "constant"]},
            "model.neuron.normalization_constant": {
                "choices": [8.0],
                "when": {"model.neuron.normalization": "constant"},
            },
        },
    )
    point = {"model.neuron.normalization": "constant", "model.neuron.normalization_constant": 8.0}
    assert plan.experiment(point).config.model.neuron.normalization_constant == 8.0


def test_a_point_on_a_step_of_tenths_is_accepted(tmp_path: Path) -> None:
    space = {"loss.mask_weight": {"low": 5.0, "high": 6.0, "step": 0.1}}
    assert load(tmp_path, space=space, first=[{"loss.mask_weight": 5.3}]).points
    grid = {"sampler": {"name": "grid", "seed": 1}, "first": [{"loss.mask_weight": 5.3}]}
    assert len(load(tmp_path, space=space, **grid).points) == 11, "5.3 is there once"


def test_points_that_leave_something_to_be_drawn_may_be_equal(tmp_path: Path) -> None:
    space = {
        "model.neuron.levels": {"choices": [1, 2]},
        "loss.mask_weight": {"low": 5.0, "high": 6.0, "when": {"model.neuron.levels": 2}},
    }
    drawn, whole = {"model.neuron.levels": 2}, {"model.neuron.levels": 1}
    assert len(load(tmp_path, space=space, first=[drawn, drawn, whole]).points) == 3
    with pytest.raises(ConfigError, match=r"first: the same point as first\.1"):
        load(tmp_path, space=space, first=[drawn, whole, whole])


def test_a_number_of_fine_steps_is_not_listed(tmp_path: Path) -> None:
    space = {"loss.mask_weight": {"low": 5.0, "high": 40.0, "step": 1e-8}}
    dimension = load(tmp_path, space=space).recipe.space.dimensions["loss.mask_weight"]
    assert (dimension.count(), dimension.corners()) == (3_500_000_001, [5.0, 40.0])


def test_a_date_among_the_choices_is_a_word_that_the_field_refuses(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    changes = BASE | {"space": {"loss.mask_weight": {"choices": ["DATE", 1.0]}}}
    path.write_text(yaml.safe_dump(changes, sort_keys=False).replace("DATE", "2020-01-01"))
    with pytest.raises(ConfigError, match=r"mine.yaml:\d+: loss.mask_weight: got '2020-01-01'"):
        load_sweep(str(path))


def test_a_base_beside_the_sweep_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "extends: [shapes_tiny]\nname: own\nloss: {mask_weight: 7.0}\n"
    (tmp_path / "mybase.yaml").write_text(text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load(tmp_path, base="mybase.yaml").base.config.loss.mask_weight == 7.0


def test_an_objective_may_be_whatever_the_base_measures(tmp_path: Path) -> None:
    matching = "model.query.matching=hungarian"
    panoptic = [*BASE["overrides"], matching, "data.task=panoptic"]
    objectives = [{"metric": "val/PQ_things", "direction": "maximize"}]
    limits = [{"metric": "val/PQ", "at_least": 10}]
    plan = load(tmp_path, overrides=panoptic, objectives=objectives, constraints=limits)
    assert plan.recipe.objectives[0].metric == "val/PQ_things"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trial": 3}, "trial: no such field, did you mean 'trials'?"),
        ({"sampler": {"name": "tpe", "sede": 1}}, "sampler.sede: no such field, did you mean 'se"),
        ({"sampler": {"name": "tpa", "seed": 1}}, "sampler.name: got 'tpa'"),
        ({"sampler": {"name": "tpe"}}, "sampler.seed: required, and not given"),
        ({"trials": 0}, "trials: got 0"),
        ({"base": "shapes_tinny"}, "base: recipe 'shapes_tinny' is neither"),
        (
            {"objectives": [{"metric": "val/mIuO", "direction": "maximize"}]},
            "objectives.0.metric: got 'val/mIuO', did you mean 'val/mIoU'?",
        ),
        (
            {"objectives": [{"metric": "val/PQ", "direction": "maximize"}]},
            "objectives.0.metric: got 'val/PQ': needs data.task=panoptic; an evaluation of "
            "shapes_tiny measures train/loss, val/mIoU, val/mAcc, val/aAcc, val/category_mIoU (of "
            "a label space with categories), energy/mJ, ",
        ),
        (
            {"constraints": [{"metric": "test/mIoU", "at_least": 1}]},
            "constraints.0.metric: got 'test/mIoU': is measured once, at the end, of the ",
        ),
        (
            {"pruner": {"limits": [{"metric": "train/lr", "at_most": 1}]}},
            "pruner.limits.0.metric: got 'train/lr': is measured every `trainer.log_every` steps;",
        ),
        (
            {"constraints": [{"metric": "energy", "at_most": 1}]},
            "constraints.0.metric: got 'energy'",
        ),
        (
            {"constraints": [{"metric": "energy/mJ"}]},
            "give exactly one of at_most and at_least",
        ),
        (
            {"pruner": {"limits": [{"metric": "snn/dead", "at_most": 1}]}},
            "pruner.limits.0.metric: got 'snn/dead', did you mean 'snn/dead_",
        ),
        (
            {"pruner": {"rule": "halving", "rungs": [150]}},
            "pruner.rungs: got 150: must be a multiple of trainer.evaluate_every (100)",
        ),
        (
            {"pruner": {"rule": "halving", "rungs": []}},
            "pruner.rungs: got []: must be a list of whole numbers or null, at least 1",
        ),
        (
            {"pruner": {"rule": "halving", "rungs": [100, 100]}},
            "pruner.rungs: got [100, 100]: must differ",
        ),
        ({"trials": True}, "trials: got True: must be a whole number"),
        ({"name": "a" * 201}, "must have at most 200 characters"),
        (
            {"objectives": [{"metric": "val/mIoU", "direction": "maximize", "reference": True}]},
            "objectives.0.reference: got True: must be a number",
        ),
        (
            {"space": {"loss.mask_weight": {"low": False, "high": 9}}},
            "space.loss.mask_weight.low: got False: must be a number",
        ),
        (
            {"sampler": {"name": "listed", "seed": 1}},
            "sampler.name: got 'listed': needs points in first",
        ),
        (
            {
                "sampler": {"name": "grid", "seed": 1},
                "space": {"optimizer.lr": {"low": 0.1, "high": 1.0}},
            },
            "space: optimizer.lr: a grid needs choices or a step",
        ),
        (
            {"first": [{"model.neuron.levels": 3}]},
            "first: model.neuron.levels: got 3: must be one of [1, 2]",
        ),
        (
            {"first": [{"model.neuron.levels": 2}, {}, {"model.neuron.levels": 2}]},
            "first: the same point as first.0; it would be trained twice, to the same end",
        ),
        (
            {"first": [{"model.neuron.level": 1}]},
            "not in the space, did you mean 'model.neuron.levels'?",
        ),
        (
            {
                "space": {"model.neuron.levels": {"low": 1, "high": 7, "step": 2}},
                "first": [{"model.neuron.levels": 2}],
            },
            "first: model.neuron.levels: got 2: must be a whole number in [1, 7] in steps of 2",
        ),
        (
            {
                "space": {"loss.mask_weight": {"low": 5.0, "high": 6.0, "step": 0.1}},
                "first": [{"loss.mask_weight": 5.35}],
            },
            "first: loss.mask_weight: got 5.35: must be in [5.0, 6.0] in steps of 0.1",
        ),
        (
            {
                "constraints": [
                    {"metric": "energy/mJ", "at_most": 1},
                    {"metric": "energy/mJ", "at_least": 2},
                ]
            },
            "constraints.1: got energy/mJ >= 2.0: excludes constraints.0: energy/mJ <= 1.0",
        ),
        (
            {"constraints": [{"metric": "energy/mJ", "at_most": -1}]},
            "constraints.0: got energy/mJ <= -1.0: energy/mJ is 0 to inf, so no trial can keep it",
        ),
        (
            {"pruner": {"limits": [{"metric": "snn/dead_layers", "at_least": 1.5}]}},
            "got snn/dead_layers >= 1.5: snn/dead_layers is 0 to 1, so no trial can keep it",
        ),
        (
            {"constraints": [{"metric": "snn/dead_layers", "at_most": 3}]},
            "got snn/dead_layers <= 3.0: snn/dead_layers is 0 to 1, so every trial keeps it",
        ),
        (
            {"constraints": [{"metric": "energy/mJ", "at_most": 3, "after": 100}]},
            "constraints.0.after: got 100: constraints are about the last evaluation",
        ),
        (
            {"pruner": {"limits": [{"metric": "energy/mJ", "at_most": 3, "after": 201}]}},
            "pruner.limits.0.after: got 201: stops no trial, whose last evaluation before its end",
        ),
        (
            {
                "pruner": {"limits": [{"metric": "energy/mJ", "at_most": 1}]},
                "constraints": [{"metric": "energy/mJ", "at_least": 2}],
            },
            "constraints.0: got energy/mJ >= 2.0: excludes pruner.limits.0: energy/mJ <= 1.0",
        ),
        (
            {"objectives": [{"metric": "val/mIoU", "direction": "maximize", "reference": 100}]},
            "objectives.0.reference: got 100: must be worse than results of interest",
        ),
        (
            {"objectives": [{"metric": "energy/mJ", "direction": "minimize", "reference": 0}]},
            "energy/mJ (0 to inf) is never better than it",
        ),
        (
            {
                "objectives": [
                    {"metric": "energy/mJ", "direction": "minimize", "reference": math.nan}
                ]
            },
            "objectives.0.reference: got '.nan'",
        ),
        ({"resources": {"cpu": 0}}, "cpu and gpu must not both be 0"),
        ({"resources": {"cpu": math.inf}}, "resources.cpu: got "),
        ({"resources": {"cpu": 0.00001}}, "resources.cpu: got 1e-05: must be a multiple of 0.0001"),
        ({"resources": {"cpu": 0.50005}}, "cpu: got 0.50005: must be a multiple of 0.0001"),
        ({"resources": {"gpu": 1.5}}, "resources.gpu: got 1.5: above 1 must be a whole number"),
        ({"workers_per_trial": 5}, "workers must not exceed micro_batches"),
        ({"space": {"trainer.workers": {"choices": [0, 1]}}}, "workers_per_trial decides this"),
        (
            {"space": {"trainer.energy_images": {"choices": [1, 4]}}},
            "trainer.energy_images: must be the same in all trials, or they measure different",
        ),
        (
            {"space": {"tracking.experiment": {"choices": ["a", "b"]}}},
            "tracking.experiment: all trials are recorded in one way",
        ),
        (
            {
                "sampler": {"name": "grid", "seed": 1},
                "space": {
                    "model.neuron.levels": {"choices": [1, 2]},
                    "model.neuron.timesteps": {"choices": [1, 2]},
                },
                "first": [{"model.neuron.levels": 2}],
            },
            "first: leaves something to be drawn, which a grid does not",
        ),
        (
            {"space": {"trainer.max_steps": {"choices": [100, 200]}}},
            "trainer.max_steps: must be the same in all trials",
        ),
        (
            {"space": {"trainer.evaluate_every": {"low": 1, "high": 9}}},
            "trainer.evaluate_every: must be the same in all trials",
        ),
        (
            {"space": {"trainer": {"choices": [{"max_steps": 100}]}}},
            "trainer.workers: workers_per_trial decides this",
        ),
        (
            {
                "space": {
                    "loss.mask_weight": {"low": 5.0, "high": 40.0},
                    "loss": {"choices": [{"mask_weight": 3.0}]},
                }
            },
            "loss: overwrites loss.mask_weight, which the sweep varies too",
        ),
        (
            {"overrides": ["model.neuron.levels=4"]},
            "mine.yaml:4: model.neuron.levels: the sweep varies this field itself",
        ),
        (
            {"overrides": ["data.name=[1"]},
            "mine.yaml:4: data.name: '[1' is not valid YAML",
        ),
        (
            {"space": {"loss.dice_weight": {"choices": [2, 1, 1.0]}}},
            "loss.dice_weight: got 1.0: means the same as 1",
        ),
        (
            {"space": {"model.neuron.levels": {"choices": [1, True]}}},
            "model.neuron.levels: got True: must be a whole number",
        ),
        (
            {
                "sampler": {"name": "grid", "seed": 1},
                "space": {"loss.mask_weight": {"low": 5.0, "high": 40.0, "step": 1e-8}},
            },
            "space: a grid has at most 100000 points, this one has more",
        ),
        (
            {"space": {"loss.mask_weight": {"low": 5.0, "high": 40.0, "step": 1e-300}}},
            "step must leave at most",
        ),
        ({"overrides": ["trainer.max_steps"]}, "is not of the form field=value"),
        ({"overrides": ["trainer.max_step=3"]}, "trainer.max_step: no such field"),
    ],
)
def test_a_wrong_recipe_is_refused_with_key_and_rule(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    text = refusal(tmp_path, **changes)
    assert message in text
    assert "mine.yaml" in text


def test_a_limit_that_acts_at_the_last_evaluation_before_the_end_is_accepted(
    tmp_path: Path,
) -> None:
    limit = {"metric": "energy/mJ", "at_most": 3, "after": 200}
    assert load(tmp_path, pruner={"limits": [limit]}).recipe.pruner.limits[0].after == 200


def test_what_the_command_line_replaces_is_named_as_its_own(tmp_path: Path) -> None:
    changes = {"pruner": {"limits": [{"metric": "energy/mJ", "at_most": 1}]}}
    given = "sweep.pruner.limits=[{metric: energy/mJ, at_most: -1}]"
    text = refusal(tmp_path, given, **changes)
    assert text.startswith("command line: pruner.limits.0: got energy/mJ <= -1.0: ")
    given = "sweep.objectives=[{metric: val/mIuO, direction: maximize}]"
    assert refusal(tmp_path, given).startswith("command line: objectives.0.metric: got 'val/mIuO'")


def test_shares_that_ray_can_give_are_accepted(tmp_path: Path) -> None:
    assert load(tmp_path, resources={"cpu": 1.3, "gpu": 0.0007}).recipe.resources.gpu == 0.0007
    assert load(tmp_path, resources={"cpu": 0, "gpu": 2}).recipe.resources.gpu == 2


def test_two_objectives_refuse_a_rule_for_one(tmp_path: Path) -> None:
    objectives = [
        {"metric": "val/mIoU", "direction": "maximize"},
        {"metric": "energy/mJ", "direction": "minimize"},
    ]
    text = refusal(tmp_path, objectives=objectives, pruner={"rule": "median"})
    assert "pruner.rule: got 'median': needs one objective, got 2" in text


def test_the_command_line_cannot_fix_what_the_sweep_varies(tmp_path: Path) -> None:
    text = refusal(tmp_path, "model.neuron.levels=4")
    assert text == "command line: model.neuron.levels: the sweep varies this field itself"


def test_the_command_line_wins_over_the_recipes_overrides(tmp_path: Path) -> None:
    plan = load(
        tmp_path,
        "trainer.max_steps=200",
        overrides=["trainer.max_steps=400", "trainer.evaluate_every=100"],
    )
    assert plan.base.config.trainer.max_steps == 200
    assert plan.rungs == ()


@pytest.mark.parametrize(
    ("pruner", "rungs"),
    [({}, (150, 300)), ({"grace": 1}, (75, 150, 300)), ({"grace": 3, "eta": 4}, (225,))],
    ids=["default", "as before", "later"],
)
def test_the_first_rung_comes_after_the_grace(
    tmp_path: Path, pruner: dict, rungs: tuple[int, ...]
) -> None:
    steps = ["trainer.max_steps=600", "trainer.evaluate_every=75"]
    plan = load(tmp_path, overrides=steps, pruner={"rule": "non_dominated", **pruner})
    assert plan.rungs == rungs
    stored = plan.recipe.model_dump(mode="json")["pruner"]
    assert ("grace" in stored) == (pruner.get("grace") != 1), "as sweeps before stored it"


def test_the_command_line_can_change_the_recipe_itself(tmp_path: Path) -> None:
    plan = load(tmp_path, "sweep.sampler.name=grid", "sweep.concurrency=1")
    assert plan.points == ({"model.neuron.levels": 1}, {"model.neuron.levels": 2})
    assert plan.recipe.concurrency == 1
    assert "command line: sweep.concurrency: got 0" in refusal(tmp_path, "sweep.concurrency=0")


def test_the_command_line_can_change_a_dimension(tmp_path: Path) -> None:
    space = {"loss.mask_weight": {"low": 5.0, "high": 40.0}}
    plan = load(tmp_path, "sweep.space.loss.mask_weight.low=6.0", space=space)
    assert plan.recipe.space.dimensions["loss.mask_weight"].corners() == [6.0, 40.0]


def test_a_grid_without_a_number_of_trials_runs_all_its_points(tmp_path: Path) -> None:
    plan = load(tmp_path, trials=None, sampler={"name": "grid", "seed": 0})
    assert plan.trials == 2
    assert "trials: must be given for sampler.name 'tpe'" in refusal(
        tmp_path, trials=None, sampler={"name": "tpe", "seed": 0}
    )


def test_a_trial_trains_in_its_own_process_whatever_the_base_says(tmp_path: Path) -> None:
    assert load(tmp_path).base.config.trainer.workers == 0
    assert load(tmp_path, workers_per_trial=2).base.config.trainer.workers == 2


def test_an_unknown_sweep_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        load_sweep("dem0")


def test_workers_on_the_command_line_are_refused_with_what_to_give_instead(tmp_path: Path) -> None:
    assert "sweep.workers_per_trial=N" in refusal(tmp_path, "trainer.workers=2")


def test_a_base_with_more_workers_than_the_sweep_has_micro_batches_is_no_obstacle(
    tmp_path: Path,
) -> None:
    assert load(tmp_path, "trainer.micro_batches=1").base.config.trainer.workers == 0


def test_a_sweep_refuses_patience_since_its_pruner_stops_trials(tmp_path: Path) -> None:
    text = refusal(tmp_path, "trainer.patience=2")
    assert text.startswith("command line: trainer.patience: must be null in a sweep")
    assert "pruner" in text


def test_the_command_line_of_the_recipe_itself_is_named_with_its_prefix(tmp_path: Path) -> None:
    text = refusal(tmp_path, "sweep.trials.number=2")
    assert text == "command line: sweep.trials.number: trials is a value, not a mapping"
    text = refusal(tmp_path, "sweep.objectives.0.reference=1")
    assert text == "command line: sweep.objectives.0.reference: objectives is a list, give it whole"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("40 GB"), "out of memory: 40 GB"),
        (OutOfMemoryForGoodError("one image"), "out of memory: one image"),
        (NonFiniteError("step 3"), "not finite: step 3"),
        (RuntimeError("sizes"), "RuntimeError: sizes"),
    ],
)
def test_a_failed_trial_says_which_kind_of_failure_it_was(error: Exception, reason: str) -> None:
    assert failure_reason(error) == reason
