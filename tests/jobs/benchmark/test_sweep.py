"""A sweep and a plain loop are measured over the same trainings, however the recipe is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from plans import BASE

from spikeseg.jobs.benchmark import sweep as overhead
from spikeseg.platform.config.recipes import ConfigError, dump
from spikeseg.platform.search.sweep_file.plan import load_sweep


def test_both_sides_train_the_same_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the recipe's own fields changed on the command line, and a base beside the recipe."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "beside.yaml").write_text("extends: [shapes_tiny]\nname: beside\n")
    (mine / "mine.yaml").write_text(yaml.safe_dump(BASE | {"base": "beside.yaml"}))
    given: dict[str, tuple[Any, ...]] = {}

    def turns(sides: Mapping[str, tuple[Any, tuple[Any, ...]]], seconds: float) -> dict[str, float]:
        given.update({name: arguments for name, (_, arguments) in sides.items()})
        return {"loop": 3.0, "sweep": 4.0}

    monkeypatch.setattr(overhead, "take_turns", turns)
    overrides = [
        "trainer.max_steps=200",
        "sweep.trials=1",
        "sweep.sampler.name=tpe",
        "sweep.pruner.rule=median",
    ]

    def compare(trials: int) -> list[overhead.Round]:
        measured = overhead.compare_with_loop(
            str(mine / "mine.yaml"),
            overrides,
            storage=tmp_path / "runs",
            trials=trials,
            concurrency=1,
            rounds=1,
        )
        return list(measured)

    (measured,) = compare(2)
    assert (measured.trials, measured.ratio) == (2, 0.75)
    configs = given["loop"][0]
    recipe, items = given["sweep"][:2]
    plan = load_sweep(recipe, items)
    assert plan.recipe.sampler.name == "listed" and plan.recipe.pruner.rule == "none"
    swept = [plan.experiment(point).config for point in plan.points]
    assert [dump(config) for config in swept] == configs
    assert len(configs) == 2 and swept[0].trainer.max_steps == 200
    with pytest.raises(ConfigError, match="trials: got 3: the space has no more than 2 points"):
        compare(3)
