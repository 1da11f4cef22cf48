"""What a trial tells of itself."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spikeseg.platform.search.trials import trial


def test_an_evaluation_keeps_its_seconds_where_its_driver_died_before_it_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt ends after two of three evaluations; the second one replays them."""
    now, attempts = iter((10.0, 14.0, 21.0, 100.0, 101.0, 102.0, 109.0)), iter((0, 2))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))

    def evaluations(given: dict[str, Any]) -> Iterator[tuple[Any, bool, int]]:
        known = next(attempts)
        for step in (1, 2, 3)[: 3 if known else 2]:
            yield SimpleNamespace(step=step, metrics={}, replayed=step <= known), step == 3, 1

    monkeypatch.setattr(trial, "_evaluations", evaluations)
    given = {"folder": str(tmp_path), "workers": 1}
    assert [report.seconds for report in trial.reports(given)] == [4.0, 7.0]
    assert [report.seconds for report in trial.reports(given)] == [4.0, 7.0, 7.0]


@pytest.mark.parametrize("content", ['{"1": "long"}', "[1]", '{"1": '])
def test_seconds_of_another_type_fail_the_trial_with_the_files_name(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "seconds.json").write_text(content)
    (report,) = trial.reports({"folder": str(tmp_path), "workers": 1})
    assert report.failure is not None
    assert report.failure.startswith(f"ConfigError: {tmp_path / 'seconds.json'}: ")
