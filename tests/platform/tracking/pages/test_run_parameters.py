"""Few parameters, and those that tell a run from others."""

from spikeseg.platform.config.recipes import config_digest, flat, load_experiment, override
from spikeseg.platform.tracking.pages.run_parameters import (
    MOST_PARAMETERS,
    changed_fields,
    run_parameters,
)


def test_neuron_data_seed_and_what_was_changed_are_parameters() -> None:
    given = ["data.path=/d", "trainer.max_steps=7", "data.transform.crop=[48, 48]"]
    resolved = override(load_experiment("shapes_tiny", given), {"loss.mask_weight": 8.0}, "sweep")
    assert run_parameters(resolved, changed_fields(resolved)) == {
        "loss.mask_weight": "8.0",
        "model.neuron.timesteps": "1",
        "model.neuron.levels": "4",
        "model.neuron.normalization": "levels",
        "name": "shapes_tiny",
        "data.path": "/d",
        "seed": "1",
        "trainer.max_steps": "7",
        "data.transform.crop": "[48, 48]",
    }


def test_however_much_is_changed_at_most_twenty_are_recorded_and_the_rest_counted() -> None:
    base = load_experiment("shapes_tiny")
    values = {k: v * 0.5 for k, v in flat(base.config).items() if isinstance(v, float)}
    varied = list(values)[:3]
    resolved = override(
        override(base, values, "command line"), {k: values[k] for k in varied}, "sweep"
    )
    parameters = run_parameters(resolved, changed_fields(resolved))
    assert len(parameters) == MOST_PARAMETERS
    assert {*list(parameters)[:3]} == {*varied}
    always = {"model.neuron.timesteps", "model.neuron.levels", "model.neuron.normalization"}
    every = {*values, *always, "name", "data.path", "seed"}
    assert parameters["other changes"] == f"{len(every) - 19} more, in config.yaml"


def test_a_team_s_tags_change_no_digest_that_was_recorded_before() -> None:
    plain = load_experiment("shapes_tiny")
    assert plain.config.tracking.tags == {} and plain.config.tracking.register is None
    tagged = load_experiment("shapes_tiny", ["tracking.tags={project: x}"])
    assert tagged.config.tracking.tags == {"project": "x"}
    assert config_digest(plain.config) != config_digest(tagged.config)
