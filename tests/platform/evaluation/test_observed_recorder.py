"""Training metrics are recorded as before, and shown live where Ray is open."""

import json
import re
from pathlib import Path

import pytest

from spikeseg.platform.cluster.live_metrics import GAUGES, is_in_session
from spikeseg.platform.evaluation import observed_recorder
from spikeseg.platform.evaluation.observed_recorder import ObservedRecorder


class Journal:
    """Keeps what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[int, dict[str, float]]] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.told.append((step, values))


def test_training_metrics_become_gauges_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, float] = {}

    def keep(name: str, value: float, **tags: str) -> None:
        assert tags == {"run": "first"}
        assert name in GAUGES
        shown[name] = value

    monkeypatch.setattr(observed_recorder, "set_gauge", keep)
    journal = Journal(tmp_path)
    recorder = ObservedRecorder(journal, "first", images=8)  # pyright: ignore[reportArgumentType]
    values = {"train/loss": 2.0, "perf/images_per_s": 4.0, "train/lr": 0.1}
    recorder.metrics(5, values)
    recorder.metrics(6, {"val/mIoU": 30.0})
    assert journal.told == [(5, values), (6, {"val/mIoU": 30.0})]
    assert shown == {
        "spikeseg_loss": 2.0,
        "spikeseg_images_per_second": 4.0,
        "spikeseg_step_seconds": 2.0,
        "spikeseg_step": 5,
        "spikeseg_unsent_bytes": 0,
    }


def test_a_process_that_is_not_connected_to_ray_is_in_no_session() -> None:
    assert not is_in_session()


def test_each_metric_of_the_dashboard_is_exported_and_each_exported_one_is_shown(
    repository: Path,
) -> None:
    text = (repository / "docs" / "grafana_dashboard.json").read_text()
    expressions = [t["expr"] for p in json.loads(text)["panels"] for t in p["targets"]]
    shown = set(re.findall(r"ray_(spikeseg_\w+)", " ".join(expressions)))
    assert shown == set(GAUGES)
