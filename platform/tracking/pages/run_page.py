"""What the top of a run's page in MLflow says: name, result in a sentence, pictures, how to repeat.

MLflow shows the first 100 pixels of a description and folds the rest, so the sentence and a low
strip of pictures come first.
"""

import contextlib
import getpass
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from ...config.command_lines import command_line
from ...config.recipes import Resolved
from ...config.schema import ExperimentConfig
from ...config.yaml_source import yaml_word
from .run_parameters import changed_fields, recipe_of, value_at

NOTE = "mlflow.note.content"
STRIP = "figures/strip.png"
"""Artifact with a run's pictures in one low strip."""
SHEET = "figures/contact_sheet.png"
"""Artifact with image, truth, prediction and error of a few rows."""
SMALL = "figures/small"
"""Folder of copies of figures that are no wider than the page."""
TRIAL_PICTURES = (STRIP, *(f"{SMALL}/{n}.png" for n in ("contact_sheet", "classes", "curves")))
"""Pictures of a trial that has its full budget, the one that is seen at once first."""
PICTURES = (*TRIAL_PICTURES, f"{SMALL}/confusion.png")
"""Those of a finished training."""
_REPEAT = "Repeat this run:"
RUN_ID = "{run_id}"
"""Stands in a description for the run's id, which MLflow gives when it is sent."""


class RunWord(NamedTuple):
    """What commands call a run.

    Attributes:
        word: A folder's name, of a trial `SWEEP/NUMBER`.
        storage: Folder of all runs.
    """

    word: str
    storage: Path

    @property
    def folder(self) -> Path:
        """Folder of the run or trial."""
        return self.storage / self.word.replace("/", "/trials/")


def word_of(folder: Path) -> RunWord:
    """What commands call the run in a folder.

    Args:
        folder: Of a run, a sweep or a trial (`SWEEP/trials/NUMBER`).
    """
    folder = folder.absolute()
    if folder.parent.name == "trials":
        sweep = folder.parents[1]
        return RunWord(f"{sweep.name}/{folder.name}", sweep.parent)
    return RunWord(folder.name, folder.parent)


def name_neuron(config: ExperimentConfig) -> str:
    """Timesteps, levels and normalization in short: `T2 D4 levels`."""
    neuron = config.model.neuron
    return f"T{neuron.timesteps} D{neuron.levels} {neuron.normalization}"


def show_name(config: ExperimentConfig, trial: str | None) -> str:
    """A run's name for people; commands take the name of its folder.

    Args:
        config: The experiment.
        trial: Number of the trial in its sweep; None for a run of its own.
    """
    if trial is not None:
        return f"{name_neuron(config)} #{trial}"
    return f"{name_neuron(config)} {config.name} seed {config.seed}"


def source_tags(source: str, code: Mapping[str, str]) -> dict[str, str]:
    """MLflow's own tags of who started a run, with what, from which commit.

    Args:
        source: The command, without its arguments' values.
        code: `git_state` of the code.
    """
    on_cluster = "SPIKESEG_JOB_ID" in os.environ or "RAY_JOB_ID" in os.environ
    tags = {
        "mlflow.source.name": source,
        "mlflow.source.type": "JOB" if on_cluster else "LOCAL",
    }
    # A container may know no such user.
    with contextlib.suppress(OSError, KeyError):
        tags["mlflow.user"] = getpass.getuser()
    if "git_sha" in code:
        tags["mlflow.source.git.commit"] = code["git_sha"]
    return tags


def describe_subject(config: ExperimentConfig) -> str:
    """What was trained, on what: neuron, recipe, seed, data."""
    neuron = config.model.neuron
    return (
        f"T = {neuron.timesteps}, D = {neuron.levels}, normalization {neuron.normalization}; "
        f"recipe {config.name}, seed {config.seed}, data {Path(config.data.path).name}"
    )


def describe_scores(metrics: Mapping[str, float], rank: str = "") -> str:
    """A run's result in half a sentence; empty where nothing was scored.

    Args:
        metrics: Names as in MLflow -> value; those of the checkpoint that was chosen.
        rank: Where it stands in its sweep, such as `rank 1 of 6 in sweep-demo`.
    """
    scores = [
        f"{metrics[name]:.1f} % mIoU on {split}"
        for split in ("test", "val")
        if (name := f"{split}/mIoU") in metrics
    ]
    if not scores:
        return ""
    parts = [f"**{', '.join(scores)}**"]
    if "energy/mJ" in metrics:
        parts.append(f"at {metrics['energy/mJ']:.3g} mJ an image")
    blind = [value for name, value in metrics.items() if name.startswith("val/baseline_")]
    beside = [rank] if rank else []
    beside += [f"{max(blind):.1f} % without looking at the image"] if blind else []
    return " ".join(parts) + (f" ({'; '.join(beside)})" if beside else "")


def write_note(sentence: str, repeat: str, pictures: Sequence[str]) -> str:
    """Markdown for the top of a run's page.

    Args:
        sentence: The result, or what the run is.
        repeat: Markdown that says how to repeat it.
        pictures: Paths of artifacts, the one that is seen at once first.
    """
    first, *others = [_embed(path) for path in pictures] or [""]
    parts = [sentence, first, repeat, *others]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_run(
    resolved: Resolved,
    folder: Path,
    metrics: Mapping[str, float],
    *,
    pictures: Sequence[str],
    rank: str = "",
) -> str:
    """Markdown for the top of the page of a run that has ended.

    Args:
        resolved: The experiment.
        folder: The run's folder.
        metrics: Of the checkpoint that counts, names as in MLflow; empty where it has none.
        pictures: Paths of artifacts, the one that is seen at once first.
        rank: Where it stands in its sweep.
    """
    scores, subject = describe_scores(metrics, rank), describe_subject(resolved.config)
    sentence = f"{scores}: {subject}." if scores else f"{subject}."
    repeat = describe_repetition(resolved, changed_fields(resolved), word_of(folder))
    return write_note(sentence, repeat, pictures)


def describe_repetition(resolved: Resolved, changed: Sequence[str], run: RunWord) -> str:
    """Markdown with the lines that repeat a run, with its own word and storage.

    Args:
        resolved: The experiment.
        changed: `changed_fields` of it.
        run: What commands call it.
    """
    replay = command_line("replay", run.word, "--execute", "--storage", run.storage)
    score = command_line("evaluate", run.word, "--storage", run.storage)
    return (
        f"{_REPEAT}\n\n```\n{rerun_line(resolved, changed, run.storage)}\n```\n\n"
        f"Repeat and compare step by step:\n\n```\n{replay}\n```\n\n"
        f"Its weights are in `{run.folder / 'checkpoints'}`; score them:\n\n```\n{score}\n```"
    )


def renew_note(before: str, sentence: str, pictures: Sequence[str]) -> str:
    """Exchange sentence and pictures of a description; how to repeat the run stays as it was.

    Args:
        before: The description so far; may be empty.
        sentence: The result.
        pictures: Paths of artifacts, the one that is seen at once first.
    """
    at = before.find(_REPEAT)
    lines = before[at:].splitlines() if at >= 0 else []
    repeat = "\n".join(line for line in lines if not line.startswith("![")).strip()
    return write_note(sentence, repeat, pictures)


def describe_trial(
    config: ExperimentConfig, metrics: Mapping[str, float], state: str, rank: str = ""
) -> str:
    """One sentence about a trial that has ended.

    Args:
        config: Its experiment.
        metrics: Of its last evaluation, names as in MLflow.
        state: How it ended, where not with a result: `PRUNED: ...`.
        rank: Where it stands in its sweep.
    """
    scores, subject = describe_scores(metrics, rank), describe_subject(config)
    return ": ".join(part for part in (state, scores, subject) if part) + "."


def rerun_line(resolved: Resolved, changed: Sequence[str], storage: Path) -> str:
    """The command that repeats a run, one field a line, ready to be pasted into a shell.

    Args:
        resolved: The experiment.
        changed: `changed_fields` of it.
        storage: Folder of all runs.
    """
    tree = resolved.config.model_dump(mode="json")
    fields = [f"{key}={yaml_word(value_at(tree, key))}" for key in changed]
    lines = [command_line("train", recipe_of(resolved)), *map(shlex.quote, fields)]
    return " \\\n  ".join([*lines, shlex.join(["--storage", str(storage)])])


def _embed(path: str) -> str:
    """A picture of the run's artifacts, as MLflow's server gives it to a browser."""
    query = urlencode({"path": path, "run_uuid": RUN_ID}, safe="{}")
    return f"![{Path(path).stem}](get-artifact?{query})"
