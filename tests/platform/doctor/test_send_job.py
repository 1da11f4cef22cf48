"""What is wrong with a request is refused before anything is sent; what is right travels whole."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Ran, spikeseg
from fake_head import Head, dashboard

from spikeseg.platform.cluster import job_submission
from spikeseg.platform.cluster.job_submission import jobs_line, plain_command

Capture = pytest.CaptureFixture[str]
VARIABLES = (
    *("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH"),
    *("MLFLOW_TRACKING_URI", "SPIKESEG_STORAGE", "SPIKESEG_STUDY"),
)
MINE = "extends: [shapes_tiny]\nname: mine\ntrainer: {workers: 0}\ndata: {path: shapes}\n"
SWEEP = """
name: my
base: mine.yaml
trials: 2
objectives: [{metric: val/mIoU, direction: maximize}]
sampler: {name: random, seed: 1}
space: {optimizer.lr: {low: 1.0e-3, high: 1.0e-2}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipe, sweep and data of one's own; a small package is sent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "my_sweep.yaml").write_text(SWEEP)

    def copy(target: Path) -> Path:
        (target / "spikeseg").mkdir()
        (target / "spikeseg" / "__init__.py").touch()
        return target / "spikeseg"

    monkeypatch.setattr(job_submission, "copy_package", copy)
    return tmp_path


def send(capsys: Capture, head: Head, *arguments: str, flags: tuple[str, ...] = ()) -> Ran:
    address = ("--address", f"http://{head.address}")
    return spikeseg(capsys, "submit", *address, "--no-wait", *flags, "--", *arguments)


def sent_job(head: Head) -> dict[str, Any]:
    return json.loads([body for body in head.bodies if body.startswith(b"{")][-1])


def sent_files(head: Head) -> dict[str, str]:
    """Text by name of the YAML files in what was uploaded."""
    texts = {}
    for body in head.bodies:
        if body.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                for name in archive.namelist():
                    if name.endswith(".yaml"):
                        texts[name] = archive.read(name).decode()
    return texts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian", "shapes_tiny"), "no such command 'trian'"),
        (("data", "pakc"), "no such command 'pakc'"),
        (("train", "shapes_tiny", "--resme", "x"), "No such option"),
        (("train", "shape_tiny"), "did you mean 'shapes_tiny'?"),
        (("train", "shapes_tiny", "trainer.max_step=1"), "did you mean 'max_steps'?"),
        (("sweep", "demo", "sweep.trials=none"), "trials: got 'none'"),
        (("sweep", "missing.yaml"), "neither a shipped sweep nor a file"),
        (("train", "shapes_tiny", "trainer.workers=9", "trainer.micro_batches=9"), "9 workers"),
        (("sweep", "demo", "sweep.resources.cpu=5"), "they would wait for ever"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, tuple) else "",
)
def test_a_wrong_request_is_refused_before_anything_is_sent(
    capsys: Capture, arguments: tuple[str, ...], words: str
) -> None:
    with dashboard(Head()) as head:
        ran = send(capsys, head, *arguments)
    assert ran.code == 2
    assert words in ran.err
    assert all(method == "GET" for method, _, _ in head.requests)


def test_a_recipe_of_ones_own_travels_with_what_it_extends(capsys: Capture, here: Path) -> None:
    with dashboard(Head()) as head:
        ran = send(capsys, head, "train", "mine.yaml", "seed=7")
    assert ran.code == 0, ran.err
    job = sent_job(head)
    assert " train recipe.yaml seed=7 --storage" in job["entrypoint"]
    tree = yaml.safe_load(sent_files(head)["recipe.yaml"])
    assert "extends" not in tree
    assert tree["name"] == "mine"
    assert tree["model"]["num_classes"] == 9, "of the recipe that it extends"
    assert tree["data"]["path"] == f"{here}/shapes"
    assert job["runtime_env"]["working_dir"].startswith("gcs://")


def test_a_sweep_of_ones_own_travels_with_its_base(capsys: Capture) -> None:
    with dashboard(Head()) as head:
        ran = send(capsys, head, "sweep", "my_sweep.yaml", "--trials", "1")
    assert ran.code == 0, ran.err
    assert " sweep sweep.yaml --trials 1 " in sent_job(head)["entrypoint"]
    files = sent_files(head)
    assert yaml.safe_load(files["sweep.yaml"])["base"] == "base.yaml"
    assert yaml.safe_load(files["base.yaml"])["name"] == "mine"


def test_a_shipped_recipe_needs_no_files(capsys: Capture) -> None:
    with dashboard(Head()) as head:
        ran = send(capsys, head, "train", "shapes_tiny", "trainer.workers=0")
    assert ran.code == 0, ran.err
    assert "working_dir" not in sent_job(head)["runtime_env"]


def test_name_metadata_and_storage_are_set(capsys: Capture, here: Path) -> None:
    with dashboard(Head()) as head:
        ran = send(capsys, head, "train", "shapes_tiny", "trainer.workers=0", "--name", "first")
    assert ran.code == 0, ran.err
    job = sent_job(head)
    assert job["submission_id"].startswith("first-")
    assert job["metadata"]["job_name"] == "first"
    assert job["metadata"]["spikeseg_run"] == "first"
    assert job["metadata"]["spikeseg_storage"] == f"{here}/runs"
    assert f"--storage {here}/runs" in job["entrypoint"], "the job's own folder is another"


def test_a_named_variable_travels_and_its_value_is_not_printed(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter33")
    with dashboard(Head()) as head:
        ran = send(capsys, head, "doctor", flags=("--env", "AWS_SECRET_ACCESS_KEY"))
    assert ran.code == 0, ran.err
    assert sent_job(head)["runtime_env"]["env_vars"]["AWS_SECRET_ACCESS_KEY"] == "hunter33"
    assert "hunter33" not in ran.out + ran.err


def test_room_that_the_cluster_may_grow_to_is_waited_for(capsys: Capture) -> None:
    wide = ("train", "shapes_tiny", "trainer.workers=6", "trainer.micro_batches=6")
    with dashboard(Head()) as head:
        ran = send(capsys, head, *wide, flags=("--max-nodes", "2"))
        assert ran.code == 0, ran.err
        assert "the job waits for the cluster to grow (--max-nodes 2)" in ran.out
        assert sent_job(head)["runtime_env"]["env_vars"]["SPIKESEG_MAX_NODES"] == "2"
        refused = send(capsys, head, *wide, flags=("--max-nodes", "1"))
    assert refused.code == 2
    assert "6 workers need 6 CPU" in refused.err


@pytest.mark.parametrize(
    ("types", "code"),
    [({"ff0": "node_ff0"}, 2), ({"ff0": "ray.head.default"}, 0), (None, 0)],
    ids=["no autoscaler", "the older one", "the newer one"],
)
def test_a_head_with_an_autoscaler_is_sent_what_it_may_have_room_for(
    capsys: Capture, types: dict[str, str] | None, code: int
) -> None:
    with dashboard(Head(types=types)) as head:
        wide = ("train", "shapes_tiny", "trainer.workers=6", "trainer.micro_batches=6")
        ran = send(capsys, head, *wide)
        # Who says how far it grows is believed.
        assert send(capsys, head, *wide, flags=("--max-nodes", "1")).code == 2
    assert ran.code == code, ran.err
    assert ("the job waits for the cluster to grow" in ran.out) == (code == 0)
    assert "6 workers need 6 CPU" in ran.out + ran.err


def test_the_line_by_hand_names_programs_that_a_bare_path_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    line = plain_command("http://127.0.0.1:1", ["doctor"], {"SPIKESEG_STORAGE": "/runs"})
    words = line.split()
    assert Path(words[2]).is_file()
    assert "/runs" in line
    assert "hunter" not in plain_command("http://h:1", ["x"], {"AWS_SECRET_ACCESS_KEY": "hunter"})
    assert Path(jobs_line("http://h:1", "logs", "j").split()[0]).is_file()
