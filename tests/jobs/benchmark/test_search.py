"""Replayed sweeps: the clock, the scores, and that it is our keeper that decides."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from spikeseg.jobs.benchmark.search import command, table_lines
from spikeseg.jobs.benchmark.search_methods import ONE, SEVERAL, KeeperSearcher, make_plan
from spikeseg.jobs.benchmark.search_replay import WORKERS, Result, replay, score
from spikeseg.jobs.benchmark.search_worlds import EVALUATIONS, FAMILIES, Truth, World, corner_points
from spikeseg.platform.search.study.study import Keeper


class Fixed:
    """Proposes one point for ever, and stops every second training at its first evaluation."""

    def __init__(self, world: World) -> None:
        self.point = corner_points(world)[0]
        self.reports: list[tuple[int, int]] = []
        self.begun = 0

    def propose(self) -> tuple[int, dict[str, object]]:
        self.begun += 1
        return self.begun - 1, self.point

    def go_on(
        self, number: int, evaluation: int, measured: tuple[float, float], seconds: float
    ) -> bool:
        self.reports.append((number, evaluation))
        return number % 2 == 0


def test_the_clock_counts_every_device_and_a_stopped_training_frees_one() -> None:
    world = World.draw("correlated", 0)
    searcher = Fixed(world)
    each = world.truth(searcher.point).seconds
    results = replay(world, searcher, budget=WORKERS * each * EVALUATIONS)
    assert [item.spent for item in results] == [pytest.approx(WORKERS * each * EVALUATIONS)] * 2
    ends = [number for number, evaluation in searcher.reports if evaluation == EVALUATIONS]
    assert ends == [0, 2]
    assert len(searcher.reports) == WORKERS * EVALUATIONS, "no device waits"


def test_a_score_is_about_what_is_true_of_what_the_search_would_show() -> None:
    world = World.draw("kept", 3)
    best = max(map(world.truth, corner_points(world)), key=lambda item: item.miou)
    poor = Truth(30.0, 0.02, 30.0, 0.0)
    lucky = [Result(1.0, (90.0, 0.02), poor), Result(2.0, (50.0, best.energy), best)]
    assert score(world, lucky, spent=0.5).results == 0
    assert score(world, lucky, spent=3.0).regret == pytest.approx(world.best[0] - 30.0)
    true = [Result(1.0, (60.0, best.energy), best)]
    assert score(world, true, spent=3.0).regret == 0.0
    assert 0.0 < score(world, true, spent=3.0).volume <= 1.0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_ends_where_its_truth_is_and_repeats_itself(family: str) -> None:
    world = World.draw(family, 1)
    point = corner_points(world)[2]
    curves = [world.curve(point, number) for number in range(200)]
    ends = [curve[-1][0] for curve in curves]
    assert abs(sum(ends) / 200 - world.truth(point).miou) < 1.0
    assert curves[3] == World.draw(family, 1).curve(point, 3)
    assert all(len(curve) == EVALUATIONS for curve in curves)


def test_crossing_curves_cross() -> None:
    world = World.draw("crossing", 0)
    poor, rich = dict(corner_points(world)[0]), corner_points(world)[6]
    poor["optimizer.lr"] = 4e-3

    def mean(point: dict, step: int) -> float:
        return sum(world.curve(point, n)[step][0] for n in range(40)) / 40

    assert mean(poor, 0) > mean(rich, 0)
    assert mean(poor, -1) < mean(rich, -1)


def test_it_is_our_keeper_that_proposes_and_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"next": 0, "report": 0}
    for name in calls:
        method = getattr(Keeper, name)

        def counted(self: Keeper, *given: object, _name: str = name, _call: Any = method) -> object:
            calls[_name] += 1
            return _call(self, *given)

        monkeypatch.setattr(Keeper, name, counted)
    world = World.draw("kept", 0)
    searcher = KeeperSearcher(
        make_plan('{"sampler": {"name": "random"}, "pruner": {"rule": "non_dominated"}}'), 0
    )
    replay(world, searcher, budget=3 * 8 * 60.0)
    assert calls["next"] > WORKERS
    assert calls["report"] > calls["next"]


def test_a_table_marks_what_differs_from_random_search_by_more_than_chance() -> None:
    def of(volume: float) -> dict[int, dict[str, list[float]]]:
        return {s: {"kept": [0.5, 9.0, volume + 0.01 * (s % 3), 3.0]} for s in range(6)}

    lines = table_lines({"random": of(0.5), "good": of(0.8), "poor": of(0.3)}, ["kept"])
    assert "| good | 0.810 ± 0.009 + | 0.810 ± 0.009 + |" in lines
    assert "| poor | 0.310 ± 0.009 - | 0.310 ± 0.009 - |" in lines
    assert sum("regret" in line for line in lines) == 2


def test_the_command_keeps_scores_and_prints_all_tables(tmp_path: Path) -> None:
    output = tmp_path / "scores.json"
    words = ["--seeds", "2", "--trainings", "2", "--family", "late", "--output", str(output)]
    first = CliRunner().invoke(command, [*words, "--searcher", "random + MOASHA"])
    assert first.exit_code == 0, first.output
    assert "random + MOASHA: 2 seeds" in first.output
    again = CliRunner().invoke(command, [*words, "--searcher", "random + MOASHA"])
    assert "random + MOASHA: 0 seeds" in again.output
    assert again.output[again.output.index("|") :] == first.output[first.output.index("|") :]
    wrong = CliRunner().invoke(command, ["--searcher", "magic"])
    assert wrong.exit_code == 2 and "must be one of" in wrong.output


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SEVERAL, *(f"1 {name}" for name in ONE)])
def test_every_searcher_comes_to_results(name: str) -> None:
    build = ONE[name.removeprefix("1 ")] if name.startswith("1 ") else SEVERAL[name]
    world = World.draw("noisy", 2)
    results = replay(world, build(2), budget=6 * 8 * 60.0)
    assert results
    assert all(item.spent <= 6 * 8 * 60.0 for item in results)
