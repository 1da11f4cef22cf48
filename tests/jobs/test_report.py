"""The lines that a sweep's report prints are commands that the command line takes."""

import html
import re
import shlex
from pathlib import Path

import click
import pytest

from spikeseg.jobs.cli import root
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_file.plan import load_sweep
from spikeseg.platform.search.sweep_page import Page, render_sweep


def parse_line(line: str) -> str:
    """Parse a printed command as the shell would hand it over; returns its verb."""
    words = shlex.split(line)
    assert words[0] == "spikeseg"
    group: click.Group = root
    context = click.Context(root, info_name="spikeseg")
    name, command, rest = group.resolve_command(context, words[1:])
    assert command is not None
    inner = command.make_context(name, list(rest), parent=context)
    if isinstance(command, click.Group):
        name, command, rest = command.resolve_command(inner, [*inner._protected_args, *inner.args])
        assert command is not None
        command.make_context(name, list(rest), parent=inner)
    return words[1]


def test_every_line_of_a_sweeps_report_is_a_command(tmp_path: Path) -> None:
    plan = load_sweep("demo")
    metrics = {"val/mIoU": 20.0, "energy/mJ": 0.1}
    point = {"model.neuron.timesteps": 1, "model.neuron.levels": 4}
    record = TrialRecord(
        0, "COMPLETE", point=point, history={240: metrics}, step=240, values=(20.0, 0.1)
    )
    page = render_sweep(Page(plan, {0: record}, tmp_path / "sweep demo", {}, {}, ""))
    lines = [html.unescape(text) for text in re.findall(r"<pre>(spikeseg .*?)</pre>", page)]
    verbs = [parse_line(line) for line in lines]
    assert verbs == ["sweep", "sweep", "train", "train", "evaluate", "table", "ui"]


def test_a_line_with_an_unknown_option_is_none() -> None:
    with pytest.raises(click.UsageError):
        parse_line("spikeseg table x --colums T")
