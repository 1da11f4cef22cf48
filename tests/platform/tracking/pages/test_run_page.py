"""The top of a run's page: a name for people, its result, the line that repeats it."""

import shlex
from pathlib import Path

import pytest

from spikeseg.platform.config.recipes import Resolved, load_experiment, override
from spikeseg.platform.search.sweep_file.plan import load_sweep
from spikeseg.platform.tracking.pages.run_page import (
    STRIP,
    TRIAL_PICTURES,
    describe_run,
    describe_scores,
    describe_trial,
    renew_note,
    rerun_line,
    show_name,
    source_tags,
    word_of,
)
from spikeseg.platform.tracking.pages.run_parameters import changed_fields

METRICS = {"val/mIoU": 29.03, "energy/mJ": 0.0333, "val/baseline_majority": 7.8}


def words_of(resolved: Resolved) -> list[str]:
    """The words of the line that repeats a run, but for its storage."""
    line = rerun_line(resolved, changed_fields(resolved), Path("/s"))
    # As a shell does, and shlex does not.
    *words, option, storage = shlex.split(line.replace("\\\n", ""))
    assert (option, storage) == ("--storage", "/s")
    return words


def test_the_line_stands_one_field_a_line_and_a_shell_joins_it() -> None:
    resolved = load_experiment("shapes_tiny", ["trainer.max_steps=7", "seed=3"])
    line = rerun_line(resolved, changed_fields(resolved), Path("/my runs"))
    assert line.splitlines()[0] == "spikeseg train shapes_tiny \\"
    assert "  seed=3 \\" in line.splitlines()
    assert shlex.split(line)[-2:] == ["--storage", "/my runs"]


def test_a_trial_is_called_by_its_sweep_and_shown_by_its_neuron() -> None:
    config = load_experiment("shapes_tiny", ["model.neuron.levels=2"]).config
    assert show_name(config, "7") == "T1 D2 levels #7"
    assert show_name(config, None) == "T1 D2 levels shapes_tiny seed 1"
    assert word_of(Path("/s/sweep-a/trials/7")) == ("sweep-a/7", Path("/s"))
    assert word_of(Path("/s/run-b")) == ("run-b", Path("/s"))


def test_the_sentence_holds_score_rank_energy_and_what_it_was() -> None:
    resolved = load_experiment("shapes_tiny", ["data.path=/d"])
    folder = Path("/s/sweep-a/trials/3")
    note = describe_run(resolved, folder, METRICS, pictures=TRIAL_PICTURES, rank="rank 1 of 6 in a")
    sentence, picture, *_ = note.split("\n\n")
    assert sentence == (
        "**29.0 % mIoU on val** at 0.0333 mJ an image (rank 1 of 6 in a; 7.8 % without looking at "
        "the image): T = 1, D = 4, normalization levels; recipe shapes_tiny, seed 1, data d."
    )
    assert picture == "![strip](get-artifact?path=figures%2Fstrip.png&run_uuid={run_id})"
    assert "spikeseg replay sweep-a/3 --execute --storage /s" in note


def test_what_was_not_measured_is_not_said() -> None:
    assert describe_scores({}) == ""
    assert describe_scores({"val/mIoU": 5.0}) == "**5.0 % mIoU on val**"
    config = load_experiment("shapes_tiny").config
    assert describe_trial(config, {}, "FAIL, out of memory").startswith(
        "FAIL, out of memory: T = 1"
    )


def test_a_renewed_description_keeps_the_line_and_no_old_picture() -> None:
    resolved = load_experiment("shapes_tiny")
    before = describe_run(resolved, Path("/s/run-b"), {}, pictures=TRIAL_PICTURES)
    after = renew_note(before, "New.", [STRIP])
    assert after.startswith("New.\n\n![strip]") and after.count("![") == 1
    assert after.count("spikeseg train shapes_tiny") == 1
    assert after.count("```") == before.count("```")
    assert renew_note("", "Alone.", ()) == "Alone.\n"


def test_a_machine_that_knows_no_user_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", unknown)
    tags = source_tags("spikeseg train a", {"git_sha": "abc"})
    assert tags["mlflow.source.git.commit"] == "abc" and "mlflow.user" not in tags
    assert tags["mlflow.source.type"] == "LOCAL"


def test_the_line_that_repeats_a_run_gives_the_same_configuration() -> None:
    given = ["trainer.max_steps=7", "data.transform.crop=[48, 48]", "trainer.ema_decay=null"]
    resolved = override(load_experiment("camvid_tiny", given), {"model.neuron.levels": 2}, "sweep")
    program, verb, recipe, *overrides = words_of(resolved)
    assert (program, verb) == ("spikeseg", "train")
    assert load_experiment(recipe, overrides).config == resolved.config


@pytest.mark.parametrize(
    "given",
    [
        ["name=other"],
        ["tracking.experiment='123'"],
        ["tracking.experiment='null'"],
        ["tracking.experiment='a b: c'"],
        ["tracking.experiment='!tag'"],
        ["tracking.experiment='@team'"],
        ["tracking.experiment='%ü🙂'"],
    ],
)
def test_names_and_quoted_words_survive_the_line(given: list[str]) -> None:
    resolved = load_experiment("shapes_tiny", given)
    _, _, recipe, *overrides = words_of(resolved)
    assert load_experiment(recipe, overrides).config == resolved.config


def test_the_line_of_a_trial_holds_what_its_sweep_changes() -> None:
    plan = load_sweep("demo")
    resolved = plan.experiment(plan.recipe.first[0] if plan.recipe.first else {})
    _, _, recipe, *overrides = words_of(resolved)
    assert load_experiment(recipe, overrides).config == resolved.config


def test_the_line_of_a_recipe_without_a_name_of_its_own_names_its_file(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: [shapes_tiny]\ntrainer: {max_steps: 7}\n")
    resolved = load_experiment(str(recipe))
    _, _, found, *overrides = words_of(resolved)
    assert (found, overrides) == (str(recipe), [f"data.path={resolved.config.data.path}"])


def test_the_line_can_be_given_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: [shapes_tiny]\ndata: {path: here}\ninit: {segmentor: weights.safetensors}\n"
    )
    monkeypatch.chdir(tmp_path)
    resolved = load_experiment(str(recipe))
    words = words_of(resolved)
    monkeypatch.chdir("/")
    _, _, found, *overrides = words
    assert load_experiment(found, overrides).config == resolved.config


def test_the_line_of_a_recipe_file_names_the_file(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: [shapes_tiny]\nname: mine\nseed: 9\n")
    resolved = load_experiment(str(recipe))
    _, _, found, *overrides = words_of(resolved)
    assert found == str(recipe)
    assert load_experiment(found, overrides).config == resolved.config
