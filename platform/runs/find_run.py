"""Find a run by its word: a name, a folder, an id in MLflow, `SWEEP/TRIAL`, `latest`."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from ..config.command_lines import command_line
from ..config.errors import ConfigError, nearest
from ..config.recipes import split_override
from ..config.run_names import check_run_name, check_word, require_inside, shown, split_mirrored
from ..config.stored_json import check_stored, read_stored
from ..tracking.journal_lines import RECORDS

Kind = Literal["run", "trial", "sweep"]
LATEST = "latest"
BEST = "best"
SWEEP_PLAN = "plan.json"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SHOWN = 12
# A trial that no process began has a journal alone, a copy of checkpoints nothing else.
_OF_A_RUN = ("config.yaml", "checkpoints", f"journal/{RECORDS}")


@dataclass(frozen=True)
class FoundRun:
    """A run, a trial of a sweep, or a sweep, in a storage folder.

    Attributes:
        folder: Its folder.
        kind: What it is.
        checkpoint: The checkpoint's folder, where the word named one.
    """

    folder: Path
    kind: Kind
    checkpoint: Path | None = None

    @property
    def storage(self) -> Path:
        """Folder of all runs."""
        return self.folder.parents[2] if self.kind == "trial" else self.folder.parent

    @property
    def word(self) -> str:
        """The shortest word that always names it."""
        if self.kind == "trial":
            return f"{self.folder.parents[1].name}/{self.folder.name}"
        return self.folder.name

    @property
    def weights(self) -> Path:
        """The checkpoint that was named, else the folder, whose best checkpoint is meant."""
        return self.checkpoint or self.folder


class _Objective(BaseModel):
    metric: str
    direction: Literal["maximize", "minimize"]


class _Recipe(BaseModel):
    objectives: list[_Objective]


class _Plan(BaseModel):
    """What is read of a sweep's plan."""

    recipe: _Recipe


def find_run(word: str, storage: Path, *, kinds: Sequence[Kind] = ("run", "trial")) -> FoundRun:
    """Find what a word names.

    Args:
        word: Name of a run or sweep or a unique prefix of one; the folder of a run, trial, sweep
            or checkpoint; the id of a run in MLflow; `SWEEP/TRIAL` with a trial's number or `best`
            (by the first objective); or `latest`, the run that was started last.
        storage: Folder of all runs.
        kinds: What the caller can use.

    Raises:
        ConfigError: Where nothing, several things, or something of another kind is named.
    """
    check_word(word)
    run = _find(word, storage.absolute(), kinds)
    if run is None:
        raise ConfigError(_not_found(word, storage.absolute(), kinds))
    if run.kind not in kinds:
        raise ConfigError(_wrong_kind(run, kinds))
    return run


def find_run_to_resume(
    word: str, storage: Path, *, kind: Literal["run", "sweep"]
) -> tuple[str, Path]:
    """Name and storage of a run or sweep to continue.

    Args:
        word: As `find_run` takes it; a run's address in a mirror is returned as it is.
        storage: Folder of all runs.
        kind: What can be continued.

    Raises:
        ConfigError: As `find_run`, and where a checkpoint is named, or something outside of the
            storage.
    """
    if "://" in word:
        if kind == "sweep":
            raise ConfigError(
                f"--resume: got {shown(word)}: a sweep is continued in its storage, mirrors hold "
                "single runs"
            )
        check_run_name(split_mirrored(word)[1], "--resume")
        return word, storage
    try:
        run = find_run(word, storage, kinds=(kind,))
    except ConfigError as error:
        raise ConfigError(f"--resume {error}") from error
    if run.checkpoint is not None:
        raise ConfigError(
            f"--resume {word}: is a checkpoint; a run goes on from its newest one: --resume "
            f"{run.word}"
        )
    require_inside(run.folder, storage, f"--resume {word}")
    return check_run_name(run.word, "--resume"), run.storage


def find_mlflow_id(word: str, storage: Path, *, kinds: Sequence[Kind]) -> tuple[str, Path]:
    """A run's id in MLflow, and the storage whose database holds it.

    Args:
        word: As `find_run` takes it; an id is returned as it is, MLflow alone may know its run.
        storage: Folder of all runs.
        kinds: What the caller can use.

    Raises:
        ConfigError: As `find_run`, and where nothing of the run was sent to MLflow.
    """
    if _RUN_ID.fullmatch(word):
        return word, storage
    # Verbs that read folders alone need no tracker.
    from ..tracking.tracking_uri import tracking_uri
    from ..tracking.upload.upload_offset import SentOffset

    run = find_run(word, storage, kinds=kinds)
    run_id = SentOffset(run.folder / "journal", tracking_uri(run.storage)).run_id
    if not run_id:
        line = command_line("track", "sync", run.folder.absolute())
        raise ConfigError(f"{run.word}: not in MLflow yet; send it there first: {line}")
    return run_id, run.storage


def find_mlflow_ids(
    words: Sequence[str], storage: Path, *, kinds: Sequence[Kind]
) -> tuple[list[str], Path]:
    """Ids of several runs in MLflow, and the one storage whose database holds them all.

    Args:
        words: Each as `find_mlflow_id` takes it.
        storage: Folder of all runs.
        kinds: What the caller can use.

    Raises:
        ConfigError: As `find_mlflow_id`, and where folders of several storages are named.
    """
    pairs = [find_mlflow_id(word, storage, kinds=kinds) for word in words]
    storages = {folder.absolute() for _, folder in pairs}
    if len(storages) != 1:
        raise ConfigError(f"runs of one storage at a time, got {', '.join(map(str, storages))}")
    return [run_id for run_id, _ in pairs], storages.pop()


def resolve_initial_run(overrides: Sequence[str], storage: Path) -> tuple[str, ...]:
    """Overrides with a folder where `init.segmentor` names a run by another word.

    Args:
        overrides: Items `field=value`.
        storage: Folder of all runs.

    Raises:
        ConfigError: Where no run has this name, a prefix is ambiguous, or a sweep is named.
    """
    resolved = []
    for item in overrides:
        key, word = split_override(item)
        by_word = key == "init.segmentor" and "://" not in word
        if by_word and not Path(check_word(word)).exists():
            run = _find(word, storage.absolute(), ("run", "trial"))
            # What looks like a file is refused as one where it is read.
            if run is not None or not ("/" in word or Path(word).suffix):
                item = f"{key}={find_run(word, storage).weights}"
        resolved.append(item)
    return tuple(resolved)


def runs_in(storage: Path, *, kinds: Sequence[Kind] = ("run", "sweep")) -> list[FoundRun]:
    """Runs and sweeps of a storage folder, by name.

    Args:
        storage: The folder.
        kinds: `run`, `sweep` or both.
    """
    folders = sorted(storage.iterdir()) if storage.is_dir() else []
    entries = (identify(path) for path in folders if not path.name.startswith("."))
    return [run for run in entries if run is not None and run.kind in kinds and not run.checkpoint]


def trials_of(sweep: Path) -> list[FoundRun]:
    """A sweep's trials by number.

    Args:
        sweep: The sweep's folder.
    """
    folders = (path for path in sweep.glob("trials/*") if path.name.isdecimal())
    return [FoundRun(path, "trial") for path in sorted(folders, key=lambda path: int(path.name))]


def identify(path: Path) -> FoundRun | None:
    """What a folder is; None where it is neither run, trial, sweep nor checkpoint."""
    path = path.absolute()
    if (path / SWEEP_PLAN).is_file():
        return FoundRun(path, "sweep")
    if path.name.startswith("step-") and (path / "manifest.json").is_file():
        run = identify(path.parents[1]) if path.parent.name == "checkpoints" else None
        return FoundRun(run.folder if run else path, run.kind if run else "run", path)
    if any((path / name).exists() for name in _OF_A_RUN):
        is_trial = path.parent.name == "trials" and (path.parents[1] / SWEEP_PLAN).is_file()
        return FoundRun(path, "trial" if is_trial else "run")
    return None


def start_of(run: FoundRun) -> float:
    """When a run was started last, in seconds since 1970; a sweep by its newest driver."""
    attempt = newest_attempt(run.folder)
    if attempt is not None:
        return float(attempt["time"])
    path = run.folder / (SWEEP_PLAN if run.kind == "sweep" else "config.yaml")
    return path.stat().st_mtime if path.is_file() else run.folder.stat().st_mtime


def newest_attempt(folder: Path) -> dict[str, Any] | None:
    """Host, process and time of a run's last start; None where it never had one."""
    for path in sorted(folder.glob("attempts/[0-9]*"), reverse=True):
        try:
            attempt = json.loads(path.read_text())
        except (OSError, ValueError):  # a process that is just writing it
            continue
        if isinstance(attempt, dict) and {"host", "pid", "time"} <= attempt.keys():
            return attempt
    return None


def _find(word: str, storage: Path, kinds: Sequence[Kind]) -> FoundRun | None:
    if word == LATEST:
        wanted: Kind = "run" if "run" in kinds else "sweep"
        return max(runs_in(storage, kinds=(wanted,)), key=start_of, default=None)
    # A path that leaves the storage is one from this folder.
    inside = [] if ".." in Path(word).parts else [storage / word]
    for path in (*inside, Path(word)):
        run = identify(_follow_link(path, storage)) if word.strip("./") else None
        if run is not None:
            return run
    if _RUN_ID.fullmatch(word):
        return next((run for run in _everything(storage) if word in _ids(run.folder)), None)
    name, slash, trial = word.rpartition("/")
    if slash and (trial == BEST or trial.isdecimal()):
        sweep = _by_prefix(name, runs_in(storage, kinds=("sweep",)))
        return None if sweep is None else _find_trial(sweep, trial)
    known = runs_in(storage)
    usable = [run for run in known if run.kind in kinds]
    return _by_prefix(word, usable) or _by_prefix(word, known)


def _follow_link(path: Path, storage: Path) -> Path:
    """The folder that a link names, so that a run keeps its name and its storage's database.

    A folder of the storage that lies on another disk stays what the storage calls it.
    """
    if not path.is_symlink():
        return path
    target = path.resolve()
    if target.is_relative_to(storage.resolve()):
        return storage / target.relative_to(storage.resolve())
    return path if path.absolute().parent == storage else target


def _by_prefix(prefix: str, runs: Sequence[FoundRun]) -> FoundRun | None:
    named = [run for run in runs if prefix and run.folder.name.startswith(prefix)]
    exact = [run for run in named if run.folder.name == prefix]
    if len(exact or named) > 1:
        raise ConfigError(
            f"{prefix}: several runs begin so, give more of one name: {_listed(named)}"
        )
    return next(iter(exact or named), None)


def _find_trial(sweep: FoundRun, trial: str) -> FoundRun:
    number = _best_trial(sweep) if trial == BEST else int(trial)
    folder = sweep.folder / "trials" / str(number)
    if not folder.is_dir():
        there = ", ".join(item.folder.name for item in trials_of(sweep.folder)) or "none"
        raise ConfigError(f"{sweep.word}/{trial}: no such trial; there are: {there}")
    return FoundRun(folder, "trial")


def read_objectives(sweep: FoundRun) -> dict[str, int]:
    """Objectives of a sweep, the first one first: metric -> 1 where less is better, else -1.

    Raises:
        ConfigError: Names what is wrong with the sweep's plan.
    """
    objectives = read_stored(sweep.folder / SWEEP_PLAN, _Plan).recipe.objectives
    return {item.metric: -1 if item.direction == "maximize" else 1 for item in objectives}


def _best_trial(sweep: FoundRun) -> int:
    """Number of the best trial by the first objective; of a sweep with replicates, the leader's."""
    results = sweep.folder / "results.json"
    if not results.is_file():
        raise ConfigError(
            f"{sweep.word}/{BEST}: the sweep has no results yet; name a trial by its number, or "
            f"continue the sweep: {_continuation(sweep.folder)}"
        )
    signs, rows = read_objectives(sweep), list[tuple[bool, list[float], int]]()
    for index, row in enumerate(read_stored(results, list[dict[str, Any]])):
        where = f"{results}: {index}"
        failed = row.get("violations") or row.get("degenerate")
        if row.get("state") == "COMPLETE" and not failed:
            values = [
                sign * check_stored(row.get(metric), float, f"{where}: {metric}")
                for metric, sign in signs.items()
            ]
            last = not check_stored(row.get("leader", False), bool, f"{where}: leader")
            rows.append((last, values, check_stored(row.get("trial"), int, f"{where}: trial")))
    if not rows:
        raise ConfigError(
            f"{sweep.word}/{BEST}: no trial finished within the sweep's constraints and scored "
            "better than an answer that ignores the image"
        )
    return min(rows)[2]


def _everything(storage: Path) -> Iterator[FoundRun]:
    for run in runs_in(storage):
        yield run
        if run.kind == "sweep":
            yield from trials_of(run.folder)


def _ids(folder: Path) -> tuple[str, ...]:
    """Ids that a run's journal was sent under."""
    try:
        return (json.loads((folder / "journal" / "sent.json").read_text())["run_id"],)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _not_found(word: str, storage: Path, kinds: Sequence[Kind]) -> str:
    path = Path(word)
    if path.is_dir():
        return f"{word}: neither a checkpoint nor the folder of a run"
    if _RUN_ID.fullmatch(word):
        return f"{word}: no run in {storage} was sent to MLflow under this id"
    if path.name != word and word.strip("./"):
        return f"{word}: no such folder, and no such run in {storage}"
    what = "sweep" if list(kinds) == ["sweep"] else "run"
    known = [run for run in runs_in(storage) if what == "run" or run.kind == "sweep"]
    near = nearest(word, [run.folder.name for run in known])
    return f"{word}: no such {what} in {storage}{near}; there are: {_listed(known)}"


def _wrong_kind(run: FoundRun, kinds: Sequence[Kind]) -> str:
    if run.kind == "sweep" and "trial" not in kinds:
        return f"{run.word}: is a sweep, which is continued by: {_continuation(run.folder)}"
    if run.kind == "sweep":
        return (
            f"{run.word}: is a sweep; name one of its trials: {run.word}/{BEST}, or "
            f"{run.word}/NUMBER"
        )
    if run.kind == "trial" and "run" in kinds:
        line = _continuation(run.folder.parents[1])
        return f"{run.word}: is a trial, which its sweep continues: {line}"
    return f"{run.word}: is a {run.kind}, and a sweep is needed here"


def _continuation(sweep: Path) -> str:
    """The command that continues the sweep in a folder."""
    storage = sweep.absolute().parent
    return command_line("sweep", "--resume", sweep.name, "--storage", storage)


def _listed(runs: Sequence[FoundRun]) -> str:
    names = [run.folder.name for run in sorted(runs, key=start_of, reverse=True)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more
