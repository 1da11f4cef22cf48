"""Where runs are tracked is decided once, by the driver, and handed on as an absolute address."""

from pathlib import Path

import pytest
from journals import open_journal

from spikeseg.platform.config.recipes import Resolved, load_experiment
from spikeseg.platform.tracking.tracking_uri import check_uri, tracking_uri
from spikeseg.platform.train.tracked_training import TrackedRun, start_sender


def test_a_relative_database_is_that_of_the_drivers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MLFLOW_TRACKING_URI=sqlite:///tracking.db`, workers elsewhere: it was made beside them."""
    for name in ("driver", "worker", "storage/run"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///tracking.db")
    monkeypatch.chdir(tmp_path / "driver")
    resolved = Resolved(load_experiment("shapes_tiny", ["data.path=d"]).config, {})
    folder = tmp_path / "storage" / "run"
    driver = TrackedRun(resolved, folder, {}, tracker=tracking_uri(folder.parent))
    monkeypatch.chdir(tmp_path / "worker")
    worker = TrackedRun.from_message(driver.to_message())
    sender = start_sender(open_journal(folder / "journal"), worker)
    assert sender is not None
    sender.stop(timeout=60)
    assert (tmp_path / "driver" / "tracking.db").is_file()
    assert not list((tmp_path / "worker").iterdir())


@pytest.mark.slow
def test_a_storage_of_any_name_holds_its_own_database(tmp_path: Path) -> None:
    storage = tmp_path / "quest?ion" / "runs"
    (storage / "run").mkdir(parents=True)
    resolved = Resolved(load_experiment("shapes_tiny", ["data.path=d"]).config, {})
    tracked = TrackedRun(resolved, storage / "run", {})
    journal = open_journal(storage / "run" / "journal")
    journal.text("note.txt", "kept")
    sender = start_sender(journal, tracked)
    assert sender is not None
    sender.stop(timeout=60)
    assert (storage / "mlflow.db").is_file()
    assert list((storage / "artifacts").rglob("*.*"))
    assert [path.name for path in tmp_path.iterdir()] == ["quest?ion"]


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("sqlite:///quest?ion/t.db", r"\? begins options .* has %3F there"),
        ("sqlite:///:memory:", "a database in memory ends with its process"),
        ("sqlite://", "a database in memory ends with its process"),
        ("sqlite:///$NOT_SET_AT_ALL/t.db", r"the variable \$NOT_SET_AT_ALL is not set here"),
        ("file:///mlruns", "must be an http address or that of a database"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(uri: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"MLFLOW_TRACKING_URI: .*{rule}"):
        check_uri(uri)
