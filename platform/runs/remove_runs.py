"""Delete runs and sweeps that nothing needs any more."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...datasets.packed.files import delete_folder
from ..config.command_lines import command_line
from ..config.errors import ConfigError
from ..config.run_names import require_inside
from ..tracking.journal_lines import RECORDS
from ..tracking.upload.upload_offset import unsent
from .find_run import SWEEP_PLAN, FoundRun, find_run, runs_in
from .run_state import is_live, run_state


@dataclass(frozen=True)
class Removal:
    """A run or sweep that may be deleted.

    Attributes:
        run: The run or sweep.
        frees: Bytes of its files.
        warning: What would be lost that is nowhere else; empty where nothing.
    """

    run: FoundRun
    frees: int
    warning: str


def plan_removal(words: Sequence[str], storage: Path) -> list[Removal]:
    """Find out what may be deleted, and what that frees.

    Args:
        words: Runs and sweeps, as `find_run` takes them.
        storage: Folder of all runs.

    Raises:
        ConfigError: Where a word names nothing, or something that is at work or still needed.
    """
    named = [find_run(word, storage, kinds=("run", "trial", "sweep")) for word in words]
    for run in named:
        require_inside(run.folder, storage, run.word)
    # Sweeps leave first: what they read from is needed as long as they are there.
    runs = sorted({run.folder: run for run in named}.values(), key=lambda run: run.kind != "sweep")
    for run in runs:
        _require_unneeded(run, leaving={other.folder for other in runs})
    return [Removal(run, _size(run.folder), _unsent(run.folder)) for run in runs]


def remove_run(removal: Removal) -> None:
    """Delete a run's or sweep's folder; what MLflow holds of it stays there.

    Raises:
        ConfigError: Where it was started again in the meantime.
    """
    _require_unneeded(removal.run)
    folder = removal.run.folder
    # Renamed first: what a kill leaves is no half of a run.
    leaving = folder.with_name(f".removing-{folder.name}")
    folder.rename(leaving)
    if not delete_folder(leaving):
        raise RuntimeError(
            f"{leaving}: not all of it could be deleted; a process may have files of it open: "
            "delete the folder once that has ended"
        )


def _require_unneeded(run: FoundRun, leaving: Collection[Path] = ()) -> None:
    word = run.word
    if run.checkpoint is not None:
        raise ConfigError(
            f"{run.checkpoint}: is one checkpoint; a run is removed whole: "
            f"{_line(run, 'runs', 'remove', word)}"
        )
    if run.kind == "trial":
        sweep = run.folder.parents[1].name
        raise ConfigError(
            f"{word}: is a trial, which its sweep reads when it is continued; a sweep is removed "
            f"whole: {_line(run, 'runs', 'remove', sweep)}"
        )
    if is_live(run):
        raise ConfigError(f"{word}: a process is at work on it; end that first")
    if run.kind == "sweep" and run_state(run) != "finished":
        raise ConfigError(
            f"{word}: the sweep has trials without an end, and its continuation needs all of it: "
            f"{_line(run, 'sweep', '--resume', word)}; delete {run.folder} by hand to give it up"
        )
    user = _user_of(run, leaving)
    if user is not None:
        when = "and has not ended"
        if user.kind == "sweep":
            line = _line(user, "runs", "remove", user.word)
            when = f"when it is continued; remove it first: {line}"
        raise ConfigError(f"{word}: {user.word} reads from {run.folder} {when}")


def _line(run: FoundRun, *words: str) -> str:
    """A command about a run, with its storage."""
    return command_line(*words, "--storage", run.storage.absolute())


def _user_of(run: FoundRun, leaving: Collection[Path]) -> FoundRun | None:
    """A live run, or a sweep, whose configuration names a run's folder by any path to it."""
    paths = re.compile(rf"[^\s\"'=]*/{re.escape(run.folder.name)}(?![\w.-])")
    target = run.folder.resolve()
    for other in runs_in(run.storage):
        path = other.folder / (SWEEP_PLAN if other.kind == "sweep" else "config.yaml")
        # A folder that was begun without a configuration reads from nothing.
        if other.folder in leaving or other.folder == run.folder or not path.is_file():
            continue
        named = {Path(text).resolve() for text in paths.findall(path.read_text())}
        if target in named and (other.kind == "sweep" or is_live(other)):
            return other
    return None


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _unsent(folder: Path) -> str:
    journals = [path.parent for path in folder.rglob(f"journal/{RECORDS}")]
    left = sum(map(unsent, journals))
    return f"{left} bytes of its journal are not in MLflow" if left else ""
