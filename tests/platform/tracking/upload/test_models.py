"""Models in MLflow: each once, whatever breaks, and the best one a version with an alias."""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from trained_run import TrainedRun

from spikeseg.platform.tracking.journal import Journal
from spikeseg.platform.tracking.journal_lines import read_records
from spikeseg.platform.tracking.mlflow_client import connect
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.tracking.upload.models import _without_infos
from spikeseg.platform.tracking.upload.uploader import sync


def record_of(trained: TrainedRun) -> dict[str, Any]:
    (record,) = [r for r in read_records(trained.folder / "journal") if r["kind"] == "model"]
    return {key: value for key, value in record.items() if key not in ("kind", "end")}


def journal_with_model(folder: Path, trained: TrainedRun, register: str | None) -> Path:
    """A run's folder with a model of its own, and its journal."""
    shutil.copytree(trained.folder / "model", folder / "model")
    journal = Journal(folder / "journal", run_name=folder.name, tags={}, params={"T": "1"})
    journal.metrics(record_of(trained)["step"], {"val/mIoU": 5.0})
    journal.model({**record_of(trained), "register": register})
    journal.finish("FINISHED")
    journal.close()
    return journal.folder


def test_a_registered_model_is_one_version_and_the_champion_is_the_newest(
    storage: Path, trained: TrainedRun
) -> None:
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    client = MlflowClient(uri)
    first = journal_with_model(storage / "run-a", trained, "shapes")
    sync(first, uri, "x")
    (first / "sent.json").unlink()
    sync(first, uri, "x")
    assert len(client.search_model_versions("name = 'shapes'")) == 1
    second = sync(journal_with_model(storage / "run-b", trained, "shapes"), uri, "x")
    assert len(client.search_model_versions("name = 'shapes'")) == 2
    assert client.get_model_version_by_alias("shapes", "champion").run_id == second
    sync(journal_with_model(storage / "run-c", trained, None), uri, "x")
    assert len(client.search_model_versions("name = 'shapes'")) == 2


@pytest.mark.parametrize("broken", ["log_model_artifacts", "log_outputs", "finalize_logged_model"])
def test_a_connection_that_breaks_leaves_one_whole_model_in_the_end(
    storage: Path, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    journal = journal_with_model(storage / "run-a", trained, None)

    def breaks(*_: object, **__: object) -> None:
        raise MlflowException("connection lost")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, broken, breaks)
        with pytest.raises(RuntimeError, match="connection lost"):
            sync(journal, uri, "x")
    run_id = sync(journal, uri, "x")
    client = MlflowClient(uri)
    run = client.get_run(run_id)
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert str(model.status) == "READY"
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert [metric.value for metric in model.metrics or ()] == [5.0]
    assert len(client.get_metric_history(run_id, "val/mIoU")) == 1


def test_a_model_is_found_where_its_storage_was_moved(storage: Path, trained: TrainedRun) -> None:
    before, after = storage / "before", storage / "after"
    before.mkdir()
    (storage / "mlflow.db").rename(before / "mlflow.db")
    sync(journal_with_model(before / "run-a", trained, "shapes"), tracking_uri(before), "x")
    before.rename(after)
    client = connect(tracking_uri(after))
    version = client.get_model_version_by_alias("shapes", "champion")
    experiment = client.get_experiment_by_name("x")
    (model,) = client.search_logged_models([experiment.experiment_id])
    for place in (version.source, client.get_model_version_download_uri("shapes", "1")):
        assert place == model.artifact_location
    assert Path(unquote(urlsplit(model.artifact_location).path)).is_relative_to(after)
    assert (Path(unquote(urlsplit(version.source).path)) / "MLmodel").is_file()


def test_a_model_reaches_a_store_without_modes(
    storage: Path, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod = os.chmod

    def refuse(path: str, mode: int, **options: bool) -> None:
        if str(path).startswith(str(storage / "artifacts")):
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        chmod(path, mode, **options)

    monkeypatch.setattr(os, "chmod", refuse)
    journal = journal_with_model(storage / "run-a", trained, None)
    sync(journal, tracking_uri(storage), "x")
    (saved,) = (storage / "artifacts").rglob("MLmodel")
    weights = (trained.folder / "model" / "model.safetensors").read_bytes()
    assert next(saved.parent.rglob("model.safetensors")).read_bytes() == weights


def test_a_model_that_is_logged_leaves_no_line_and_mlflow_s_warnings_stay(
    storage: Path, trained: TrainedRun, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    connect(uri).search_experiments()
    journal = journal_with_model(storage / "run-a", trained, None)
    capfd.readouterr()
    with caught(logging.getLogger("mlflow")) as said:
        sync(journal, uri, "x")
        level = logging.getLogger("mlflow.pyfunc").getEffectiveLevel()
    assert said == []
    assert "Validating input example" not in capfd.readouterr().err
    assert level <= logging.INFO, "the logger is as it was"
    with caught(logging.getLogger("mlflow")) as said, _without_infos("mlflow.pyfunc"):
        logging.getLogger("mlflow.pyfunc").warning("a warning")
        logging.getLogger("mlflow.pyfunc").info("an info")
    assert said == ["a warning"]


@contextlib.contextmanager
def caught(logger: logging.Logger) -> Iterator[list[str]]:
    """Messages that reach a logger while the block runs; MLflow's hands none to the root."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def test_a_model_whose_file_is_gone_is_set_aside_and_holds_nothing_up(
    storage: Path, trained: TrainedRun
) -> None:
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    journal = journal_with_model(storage / "run-a", trained, None)
    (storage / "run-a" / "model" / "model.safetensors").unlink()
    run_id = sync(journal, uri, "x")
    assert MlflowClient(uri).get_run(run_id).info.status == "FINISHED"
    assert "model.safetensors" in (journal / "dead_letters.jsonl").read_text()


def test_a_server_without_models_takes_the_rest(
    storage: Path, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{storage / 'mlflow.db'}"
    journal = journal_with_model(storage / "run-a", trained, None)

    def unknown(*_: object, **__: object) -> None:
        error = MlflowException("404")
        error.error_code = "ENDPOINT_NOT_FOUND"
        raise error

    monkeypatch.setattr(MlflowClient, "search_logged_models", unknown)
    run_id = sync(journal, uri, "x")
    assert MlflowClient(uri).get_run(run_id).info.status == "FINISHED"
    assert "knows no models" in (journal / "dead_letters.jsonl").read_text()
