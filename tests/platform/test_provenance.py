"""What a run is made of is recorded whole, and secrets never."""

import json
import shlex
from pathlib import Path

import pytest
from trained_run import TrainedRun

from spikeseg.platform import provenance
from spikeseg.platform.config import load_experiment, override
from spikeseg.platform.provenance import environment, rerun_line, scrubbed

SECRET = "s3cr3t-value-that-must-not-leak"
PLANTED = {
    "MLFLOW_TRACKING_PASSWORD": SECRET,
    "MLFLOW_TRACKING_TOKEN": SECRET,
    "RAY_AUTH_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "CUDA_API_KEY": SECRET,
    "MLFLOW_TRACKING_URI": f"http://user:{SECRET}@127.0.0.1:5000",
    "HTTP_PROXY": f"http://user:{SECRET}@127.0.0.1:3128",
    "SPIKESEG_NOTE": f"password={SECRET}",
    "DATABASE_URL": f"postgresql://user:{SECRET}@127.0.0.1/db",
}


def test_variables_that_matter_are_kept_and_planted_secrets_are_not() -> None:
    wanted = {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "CUDA_VISIBLE_DEVICES": "0"}
    kept = environment({**PLANTED, **wanted, "HOME": "/home/somebody"})
    assert SECRET not in json.dumps(kept)
    assert wanted.items() <= kept.items()
    assert kept["MLFLOW_TRACKING_URI"] == "http://[hidden]@127.0.0.1:5000"
    assert "HOME" not in kept


@pytest.mark.parametrize(
    "line",
    [
        f"spikeseg train a --token {SECRET}",
        f"spikeseg train a --api-key={SECRET}",
        f"spikeseg sweep a --study postgresql://me:{SECRET}@127.0.0.1/x",
        f"MLFLOW_TRACKING_PASSWORD={SECRET} spikeseg train a",
    ],
)
def test_a_secret_on_the_command_line_is_hidden(line: str) -> None:
    assert SECRET not in scrubbed(line)
    assert "spikeseg" in scrubbed(line)


def test_no_planted_secret_reaches_any_record_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spikeseg.platform.train.checkpoint import RunFolder
    from spikeseg.platform.train.worker import make_journal

    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["spikeseg", "train", "x", "--token", SECRET])
    run = RunFolder(tmp_path / "run")
    run.claim()
    make_journal(load_experiment("shapes_tiny"), run, 1, {}).close()
    leaking = [
        str(file)
        for file in tmp_path.rglob("*")
        if file.is_file() and SECRET.encode() in file.read_bytes()
    ]
    assert not leaking
    assert (tmp_path / "run" / "journal" / "files" / "provenance.json").is_file()


def test_a_run_records_code_packages_hardware_and_origins(trained: TrainedRun) -> None:
    folder = trained.folder / "journal" / "files"
    made_of = json.loads((folder / "provenance.json").read_text())
    assert made_of["packages"]["torch"].startswith("2.")
    assert len(made_of["packages"]) > 30
    assert made_of["hardware"]["cores"] >= 1
    assert made_of["seed"] == 1
    assert len(made_of["code"]["digest"]) == 64
    assert made_of["origins"]["trainer.max_steps"] == "command line"
    file, _, line = made_of["origins"]["model.num_classes"].rpartition(":")
    assert file.endswith("shapes_tiny.yaml")
    assert "num_classes" in Path(file).read_text().splitlines()[int(line) - 1]


def test_the_line_that_repeats_a_run_gives_the_same_configuration() -> None:
    given = ["trainer.max_steps=7", "data.transform.crop=[48, 48]", "trainer.ema_decay=null"]
    resolved = override(load_experiment("camvid_tiny", given), {"model.neuron.levels": 2}, "sweep")
    program, verb, recipe, *overrides = shlex.split(rerun_line(resolved))
    assert (program, verb) == ("spikeseg", "train")
    assert load_experiment(recipe, overrides).config == resolved.config


def test_the_line_of_a_recipe_file_names_the_file(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: [shapes_tiny]\nname: mine\nseed: 9\n")
    resolved = load_experiment(str(recipe))
    *_, found = shlex.split(rerun_line(resolved))
    assert load_experiment(found).config == resolved.config


def test_the_difference_from_the_commit_holds_changed_and_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True)

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.py").write_text("a = 1\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "x")
    (tmp_path / "model" / "old.py").write_text("a = 2\n")
    (tmp_path / "model" / "new.py").write_text("b = 3\n")
    (tmp_path / ".env").write_text(SECRET)
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    monkeypatch.setattr(provenance, "_CODE", ("model",))
    text = provenance.code_diff.__wrapped__()
    assert "-a = 1\n+a = 2" in text
    assert "+b = 3" in text
    assert SECRET not in text
    assert provenance.git_state.__wrapped__()["dirty"] == "true"
