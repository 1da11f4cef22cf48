"""Every command that the verbs print, and every line of MLflow's pages, is run as it stands."""

import html
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from trained_run import TINY

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.jobs import demo
from spikeseg.platform import demo as demo_steps
from spikeseg.platform.runs.find_run import find_run
from spikeseg.platform.search.stored_sweep import read_sweep
from spikeseg.platform.search.sweep_outcome import TrialResult
from spikeseg.platform.tracking.tracking_uri import tracking_uri

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_SWEEP = """
name: pair
base: shapes_tiny
overrides: [{overrides}]
trials: 2
objectives:
  - {{metric: val/mIoU, direction: maximize}}
  - {{metric: energy/mJ, direction: minimize}}
sampler: {{name: random, seed: 1}}
space:
  model.neuron.timesteps: {{choices: [1, 2]}}
  loss.mask_weight: {{low: 5.0, high: 40.0, log: true}}
"""
# What serves until it is ended, or trains for minutes, is asked for its help instead.
_TOO_LONG = r"spikeseg ui\b|trainer\.max_steps=600"
_COMMAND = re.compile(r"(?:^|[\s`])((?:[A-Z_]+=\S+ )?spikeseg (?:--)?[a-z].*?)(?:`|    |$)")


def find_commands(text: str) -> list[str]:
    """Lines of a text that begin `spikeseg`, after a label or a variable; a `\\` joins lines."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    return [hit.group(1) for line in joined.splitlines() for hit in _COMMAND.finditer(line)]


class Shell:
    """A shell with the `spikeseg` command, in a folder of its own; remembers what was printed.

    Args:
        folder: Where it works; nothing that is printed may depend on it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed: dict[str, str] = {}
        (folder / "bin").mkdir(parents=True)
        program = folder / "bin" / "spikeseg"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m spikeseg.jobs.cli "$@"\n')
        program.chmod(0o755)

    def run(self, line: str, **variables: str) -> str:
        """Run a line and note the commands that it prints; returns what it printed.

        Raises:
            AssertionError: Where it ends with another exit code than 0.
        """
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            line,
            shell=True,
            cwd=self.folder,
            env={**os.environ, "PATH": path, "COLUMNS": "400", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        self.note(done.stdout + done.stderr, line)
        return done.stdout

    def note(self, text: str, source: str) -> None:
        """Note the commands in a text."""
        for command in find_commands(text):
            self.printed.setdefault(command, source)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    for name in ("SPIKESEG_STORAGE", "SPIKESEG_STUDY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    yield Shell(tmp_path / "a folder")


def run_verbs(shell: Shell, storage: Path, data: Path) -> None:
    """Every verb that prints commands, on a training and a sweep of seconds."""
    tiny = " ".join(f"'{item}'" for item in (f"data.path={data}", *TINY))
    # A recipe is not all: what is printed must know the changed field, too.
    changed = "model.query.width=48"
    home = f"--storage '{storage}'"
    train = f"spikeseg train shapes_tiny {tiny} {changed} {home}"
    shell.run(f"{train} --name one")
    shell.run(f"spikeseg train --resume one {home}")
    shell.run(f"{train} --name unsent", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    shell.run(f"spikeseg sweep pair.yaml 'data.path={data}' --name pair --here {home}")
    shell.run(f"spikeseg sweep status pair {home}")
    shell.run(f"spikeseg sweep stop pair {home}")
    shell.run(f"spikeseg sweep add pair timesteps=2 mask_weight=17 {home}")
    for word in ("pair", "one"):
        shell.run(f"spikeseg report {word} --output report.html {home}")
        page = (shell.folder / "report.html").read_text()
        for line in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL):
            shell.note(html.unescape(line), f"report of {word}")
    shell.run(f"spikeseg replay one {home}")
    shell.run(f"spikeseg runs {home}")
    shell.run(f"spikeseg evaluate one --output scores {home}")


def note_pages(shell: Shell, storage: Path) -> None:
    """Note the lines that stand at the top of every run's page in MLflow."""
    client = MlflowClient(tracking_uri(storage))
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    pages = {str(run.info.run_name): run.data.tags["mlflow.note.content"] for run in runs}
    assert len(pages) >= 4, "a training, a sweep, two trials"
    for name, text in pages.items():
        shell.note(text, f"page of {name}")


def note_demo(
    shell: Shell, storage: Path, capsys: pytest.CaptureFixture[str], patched: pytest.MonkeyPatch
) -> None:
    """Note what the demo prints at its end, with the sweep at hand for its own."""
    sweep = find_run("pair", storage, kinds=("sweep",)).folder
    record = read_sweep(sweep).records[0]
    # As the keeper leaves the best trial's, which so short a sweep has not.
    recipe = sweep / "best.yaml"
    shutil.copyfile(sweep / "trials" / "0" / "config.yaml", recipe)
    best = TrialResult(0, dict(record.point), dict(zip("ab", record.values, strict=True)), sweep)
    outcome = demo_steps.DemoOutcome(
        run=storage / "one",
        trained={"test/mIoU": 1.0},
        trials=2,
        best=best,
        report={"metrics": {"test/mIoU": 1.0}, "classes": [{"class": "a", "IoU": 1.0, "Acc": 1.0}]},
        contact_sheet=sweep,
        recipe=recipe,
    )
    patched.setattr(demo_steps, "run_demo", lambda *_, **__: outcome)
    assert demo.command.callback is not None
    demo.command.callback(storage=storage)
    shell.note(capsys.readouterr().out, "demo")


def test_every_printed_command_works_as_printed(
    shell: Shell,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage, data = tmp_path / "all runs", tmp_path / "data" / "shapes"
    made = Shapes(ShapesOptions(size=(32, 32), train=12, val=4, test=3, seed=3))
    pack("shapes", made, Path(), data, progress=lambda done, total: None)
    overrides = ", ".join(f'"{item}"' for item in TINY if "workers" not in item)
    (shell.folder / "pair.yaml").write_text(_SWEEP.format(overrides=overrides))
    run_verbs(shell, storage, data)
    note_pages(shell, storage)
    note_demo(shell, storage, capsys, monkeypatch)
    # From another folder: what is printed must not depend on where it was printed.
    elsewhere = Shell(tmp_path / "elsewhere")
    seconds = {}
    for line in shell.printed:
        too_long = re.search(_TOO_LONG, line)
        started = time.monotonic()
        try:
            elsewhere.run(f"{line} --help" if too_long else line)
        except AssertionError as error:
            raise AssertionError(f"printed by {shell.printed[line]}: {error}") from error
        seconds[line] = time.monotonic() - started
    for line, source in shell.printed.items():
        print(f"{seconds[line]:6.1f} s  {line}    [{source}]")
    verbs = {re.sub(r".*?spikeseg ", "", line).split()[0] for line in shell.printed}
    assert {"train", "sweep", "evaluate", "replay", "runs", "table", "track", "ui"} <= verbs


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("evaluate:      spikeseg evaluate x --storage /a", ["spikeseg evaluate x --storage /a"]),
        ("compare: spikeseg ui --storage /a    (or: make ui)", ["spikeseg ui --storage /a"]),
        ("spikeseg train a \\\n  b=1 \\\n  --storage c", ["spikeseg train a b=1 --storage c"]),
        ("continue: SPIKESEG_STUDY=x spikeseg sweep a", ["SPIKESEG_STUDY=x spikeseg sweep a"]),
        ("`spikeseg runs` lists them", ["spikeseg runs"]),
        ("spikeseg: stopped by SIGTERM", []),
        ("recipe /a/spikeseg.yaml", []),
    ],
)
def test_commands_are_found_in_a_text(text: str, commands: list[str]) -> None:
    assert find_commands(text) == commands
