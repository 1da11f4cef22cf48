"""A wrong configuration ends before work starts and says where, what and which rule."""

from pathlib import Path

import pytest

from spikeseg.platform.config.recipes import (
    ConfigError,
    config_digest,
    dump,
    flat,
    load_experiment,
    load_resolved,
    override,
    recipe_names,
)
from spikeseg.platform.config.yaml_source import parse_value, read_yaml


# What `own` holds follows from packed data: test_data_values.py.
@pytest.mark.parametrize("recipe", sorted(set(recipe_names()) - {"own"}))
def test_every_shipped_recipe_is_valid_and_named_as_its_file(recipe: str) -> None:
    assert load_experiment(recipe).config.name == recipe


def test_a_part_of_recipes_is_not_offered_and_says_what_it_lacks() -> None:
    assert "tiny" not in recipe_names()
    with pytest.raises(ConfigError, match="name: required, and not given"):
        load_experiment("tiny")


def test_a_misspelt_key_on_the_command_line_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("shapes_tiny", ["model.neuron.timestep=2"])
    assert "command line: model.neuron.timestep: no such field" in str(caught.value)
    assert "did you mean 'timesteps'?" in str(caught.value)


def test_a_misspelt_key_in_a_file_gets_file_and_line(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: [shapes_tiny]\nname: mine\noptimizer:\n  lrr: 0.1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:4: optimizer\.lrr: no such field"):
        load_experiment(str(recipe))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("model.neuron.levels=0", "levels must be at least 1, got 0"),
        ("model.neuron.levels=four", "must be a whole number"),
        ("model.neuron.timesteps=1.5", "must be a whole number"),
        ("model.neuron.normalization=L2", "'levels', 'none' or 'constant'"),
        ("optimizer.lr=-1", "greater than 0"),
        ("trainer.max_steps=true", "must be a whole number"),
        ("model.query.matching=fixed", "'hungarian' or 'class'"),
        ("model.query={matching: class, num_queries: 8}", "got 8 queries for 9 classes"),
        ("loss.lovasz_stride=0", "lovasz_stride must be at least 1, got 0"),
        ("trainer.workers=99", "workers must not exceed micro_batches"),
        ("data=5", "data"),
        ("seed=[1, 2", "not valid YAML"),
        ("optimizer.lr.more=1", "optimizer.lr is a value"),
    ],
)
def test_a_bad_value_names_key_value_and_rule(item: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment("shapes_tiny", [item])
    text = str(caught.value)
    assert message in text
    assert text.startswith("command line: ")
    assert item.split("=")[0].split(".")[0] in text


@pytest.mark.parametrize("key", ["data.transform.crop", "data.transform.mean"])
def test_a_list_with_too_few_entries_is_blamed_on_who_gave_it(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^command line: {key}"):
        load_experiment("ade20k_sdtv2", [f"{key}=[480]"])
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: [ade20k_sdtv2]\ndata: {{transform: {{{key[15:]}: [480]}}}}\n")
    with pytest.raises(ConfigError, match=rf"^{mine}:2: {key}"):
        load_experiment(str(mine))


def test_an_unknown_recipe_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'shapes_tiny'"):
        load_experiment("shape_tiny")


def test_numbers_are_read_as_people_write_them() -> None:
    resolved = load_experiment("shapes_tiny", ["optimizer.lr=1e-3", "trainer.max_steps=7"])
    assert resolved.config.optimizer.lr == 1e-3
    assert resolved.config.trainer.max_steps == 7
    assert resolved.origins["optimizer.lr"] == "command line"


def test_aliases_that_name_a_list_of_lists_a_million_times_are_refused(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for name, above in zip("bcdef", "abcde", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(10 * [f'*{above}'])}]")
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"bomb.yaml:1: .* more than 100000 values"):
        read_yaml(tmp_path / "bomb.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1e4", 1e4), ("on", "on"), ("010", 10), ("1:30", "1:30"), (".nan", ".nan")],
)
def test_values_are_read_as_yaml_1_2_has_them(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: [shapes_tiny]\nname: a\nname: b\n")
    with pytest.raises(ConfigError, match=r'mine.yaml:3: .* found duplicate key "name"'):
        load_experiment(str(recipe))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("? [1, 2]\n: 3", "a key must be a word, got a list or mapping"),
        ("? {a: 1}\n: 3", "a key must be a word, got a list or mapping"),
        ("a: !!set {b, c}", "could not determine a constructor"),
        ("a: !!binary aGVsbG8=", "could not determine a constructor"),
        ("a: !!timestamp 2020-01-01", "could not determine a constructor"),
        ("a: &a [1, *a]", "must not hold itself"),
        ("a: &a {b: *a}", "must not hold itself"),
    ],
    ids=["list key", "map key", "set", "bytes", "date", "list in itself", "map in itself"],
)
def test_what_no_configuration_can_hold_is_refused_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"name: odd\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path))
    assert str(caught.value).startswith(f"{path}:2: not valid YAML: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["!!int a", "!!bool maybe", "[" * 2000])
def test_a_value_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"name: {text}\n")
    with pytest.raises(ConfigError, match=r"odd\.yaml.*: not valid YAML"):
        load_experiment(str(path))
    with pytest.raises(ConfigError, match=r"command line: name: .* is not valid YAML"):
        load_experiment("shapes_tiny", [f"name={text}"])


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: [b.yaml]\n")
    (tmp_path / "b.yaml").write_text("extends: [a.yaml]\n")
    with pytest.raises(ConfigError, match="in a circle"):
        load_experiment(str(tmp_path / "a.yaml"))


def test_the_saved_tree_alone_rebuilds_the_experiment() -> None:
    resolved = load_experiment("shapes_tiny", ["model.neuron.levels=2"])
    again = load_resolved(dump(resolved.config))
    assert again.config == resolved.config


def test_the_digest_ignores_where_the_data_lies_and_nothing_else() -> None:
    one = load_experiment("shapes_tiny", ["data.path=/a"]).config
    two = load_experiment("shapes_tiny", ["data.path=/b"]).config
    other = load_experiment("shapes_tiny", ["seed=5"]).config
    assert config_digest(one) == config_digest(two)
    assert config_digest(one) != config_digest(other)


def test_override_leaves_the_first_configuration_as_it_was() -> None:
    first = load_experiment("shapes_tiny")
    second = override(first, {"model.neuron.timesteps": 2}, "sweep")
    assert second.config.model.neuron.timesteps == 2
    assert first.config.model.neuron.timesteps == 1
    assert second.origins["model.neuron.timesteps"] == "sweep"
    assert flat(second.config)["model.neuron.timesteps"] == 2


def test_a_missing_parent_is_named_where_it_is_extended(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nextends: [camvid_tinyy]\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:2: extends: .*did you mean 'camvid_tiny'"):
        load_experiment(str(recipe))


def test_a_recipe_that_is_no_text_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"mine\.yaml: not a text in UTF-8"):
        load_experiment(str(recipe))
