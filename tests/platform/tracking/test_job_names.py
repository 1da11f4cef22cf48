"""A job sent to a cluster keeps its runs where the one who sends it keeps them."""

import json
from pathlib import Path

import pytest
from command import spikeseg
from fake_head import Head, dashboard

from spikeseg.platform.cluster import job_submission
from spikeseg.platform.tracking.job_names import job_arguments, job_variables

VARIABLES = ("MLFLOW_TRACKING_URI", "SPIKESEG_STORAGE", "SPIKESEG_STUDY", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_variables_are_sent_resolved_and_printed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(target: Path) -> Path:
        (target / "spikeseg").mkdir()
        (target / "spikeseg" / "__init__.py").touch()
        return target / "spikeseg"

    monkeypatch.setattr(job_submission, "copy_package", copy)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setenv("SPIKESEG_STORAGE", "runs")
    with dashboard(Head()) as head:
        command = ("submit", "--address", f"http://{head.address}", "--no-wait", "--", "doctor")
        ran = spikeseg(capsys, *command)
    assert ran.code == 0, ran.err
    assert "MLFLOW_TRACKING_URI=http://tracker:5000" in ran.out
    assert f"SPIKESEG_STORAGE={here}/runs" in ran.out
    posted = [body for body in head.bodies if body.startswith(b"{")]
    sent = json.loads(posted[-1])["runtime_env"]["env_vars"]
    assert sent["MLFLOW_TRACKING_URI"] == "http://tracker:5000"
    assert sent["SPIKESEG_STORAGE"] == f"{here}/runs"


def test_a_database_and_a_study_are_sent_by_their_absolute_paths(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///t.db")
    monkeypatch.setenv("SPIKESEG_STUDY", "study.log")
    assert job_variables(lambda line: None) == {
        "MLFLOW_TRACKING_URI": f"sqlite:///{here}/t.db",
        "SPIKESEG_STUDY": f"{here}/study.log",
    }


def test_secrets_are_not_sent_and_this_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    lines: list[str] = []
    assert job_variables(lines.append) == {}
    assert any(line.startswith("MLFLOW_TRACKING_TOKEN: not sent") for line in lines)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:hunter22@h")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI: http://h has a user") as refused:
        job_variables(lines.append)
    assert "hunter22" not in f"{refused.value}{lines}"


def test_a_credential_travels_where_it_is_named_and_is_printed_by_name_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter33")
    lines: list[str] = []
    sent = job_variables(lines.append, named=["AWS_SECRET_ACCESS_KEY"])
    assert sent == {"AWS_SECRET_ACCESS_KEY": "hunter33"}
    assert "hunter" not in "".join(lines)
    assert any(line.startswith("AWS_SECRET_ACCESS_KEY: sent, and whoever") for line in lines)
    assert any(line.startswith("MLFLOW_TRACKING_TOKEN: not sent") for line in lines)
    with pytest.raises(ValueError, match="--env AWS_SESSION_TOKEN: is not set here"):
        job_variables(lines.append, named=["AWS_SESSION_TOKEN"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000"),
        ("MLFLOW_TRACKING_URI", "https://localhost"),
        ("MLFLOW_TRACKING_URI", "sqlite:///t.db"),
        ("SPIKESEG_STUDY", "postgresql://localhost/optuna"),
    ],
)
def test_an_address_that_another_machine_cannot_mean_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}: .*an address of this machine"):
        job_variables(lambda line: None, head="10.0.0.7")
    assert name in job_variables(lambda line: None, head="127.0.0.1")


def test_an_address_of_a_shared_place_is_sent_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setenv("SPIKESEG_STUDY", "/shared/study.log")
    assert len(job_variables(lambda line: None, head="10.0.0.7")) == 2


def test_paths_among_arguments_are_those_of_this_folder(here: Path) -> None:
    (here / "data").mkdir()
    (here / "mine.yaml").touch()
    typed = ["train", "mine.yaml", "data.path=data", "--storage", "runs", "seed=1"]
    resolved = job_arguments([*typed, "--storage=b", "init.backbone=s3://b/w"])
    assert resolved == [
        *("train", f"{here}/mine.yaml", f"data.path={here}/data", "--storage", f"{here}/runs"),
        *("seed=1", f"--storage={here}/b", "init.backbone=s3://b/w"),
    ]
    # What is not here may be there.
    assert job_arguments(["data.path=elsewhere"]) == ["data.path=elsewhere"]
