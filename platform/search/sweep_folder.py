"""A sweep's folder: what it was started with, and the lock that one driver holds."""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, Field

from ...datasets.packed.files import hold_lock, write_file
from ...datasets.packed.reader import PackedDataset
from ..config.recipes import ConfigError, dump, load_resolved, override
from ..config.run_names import check_run_name, make_folder, require_inside
from ..config.stored_json import read_stored
from ..config.typed_paths import sqlite_address
from ..tracking.tracking_uri import without_user
from .study.study_storage import begin_study, check_storage_address
from .sweep_file.plan import SweepPlan, SweepRequest

PLAN = "plan.json"
LOCK = "driver.lock"
_SHOWN_DIFFERENCES = 4


class StoredRequest(BaseModel):
    """What a sweep was asked for."""

    recipe: str
    overrides: list[str]


class StoredPlan(BaseModel):
    """What a sweep was started with, as its folder keeps it."""

    recipe: dict[str, Any]
    base: str
    trials: Annotated[int, Field(ge=1)]
    # Folders of an earlier version say neither where their study lies nor what was asked for.
    study: str | None = None
    data_digest: str | None = None
    request: StoredRequest | None = None


@dataclass(frozen=True)
class SweepFolder:
    """A sweep's folder, held by this driver until it is left.

    Attributes:
        path: The folder; `plan.json`, `study.db`, `trials/<number>`, results.
        trials: Trials of the whole sweep.
        study: Address of the study.
    """

    path: Path
    trials: int
    study: str
    _lock: ExitStack

    @classmethod
    def open(
        cls,
        plan: SweepPlan,
        storage: Path,
        *,
        study: str | None,
        resume: str | None,
        name: str | None,
        trials: int | None,
    ) -> Self:
        """Make a new sweep's folder, or find that of one to continue.

        Args:
            plan: The sweep.
            storage: Folder of all runs.
            study: Address of the study; None where it lies in the folder.
            resume: Name of a sweep to continue.
            name: Name of a new sweep; made of recipe and time if not given.
            trials: Trials of the whole sweep, where not the plan's, or those of the sweep so far.

        Raises:
            ConfigError: Where the name is taken (by a folder or a study), is unknown, belongs to
                another recipe or study, or another driver is at work on it.
        """
        started = {
            "recipe": plan.recipe.model_dump(mode="json"),
            "base": dump(plan.base.config),
            "trials": trials or plan.trials,
            "study": None if study is None else without_user(study),
            "data_digest": _data_digest(plan.base.config.data.path),
            **({} if plan.request is None else {"request": asdict(plan.request)}),
        }
        if resume is None:
            path = _new_folder(plan, storage, name)
            if study is not None:
                try:
                    begin_study(study, path.name, [o.direction for o in plan.recipe.objectives])
                except ConfigError:
                    if name is None:
                        path.rmdir()
                    raise
        else:
            path = storage / check_run_name(resume, "--resume")
            require_inside(path, storage, f"--resume {resume}")
            started = _read_plan(path, started, plan, trials)
            # A sweep that was killed at once may have none yet in its folder.
            if study is None:
                exists = check_storage_address(
                    address_inside(path), f"--resume {resume}: its study"
                )
                gone = not exists and any(path.glob("trials/*"))
            else:
                gone = not check_storage_address(study)
            if gone:
                raise ConfigError(
                    f"--resume {resume}: its study is gone from {started['study'] or path}"
                )
        (path / "trials").mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        write_file(path / PLAN, json.dumps(started, indent=1))
        return cls(path, started["trials"], study or address_inside(path), lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()


def read_request(name: str, storage: Path) -> SweepRequest:
    """Read what a sweep was asked for, to continue it.

    Args:
        name: Its name.
        storage: Folder of all runs.

    Raises:
        ConfigError: Where there is no such sweep, or an earlier version began it.
    """
    path = storage / check_run_name(name, "--resume") / PLAN
    if not path.is_file():
        raise _unknown_sweep(name, storage)
    request = read_stored(path, StoredPlan).request
    if request is None:
        raise ConfigError(
            f"{path}: an earlier version began this sweep and did not keep what was asked for; "
            "give its recipe and FIELD=VALUE as then, beside --resume"
        )
    return SweepRequest(request.recipe, tuple(request.overrides))


def with_stored_defaults(name: str, storage: Path, overrides: Sequence[str]) -> list[str]:
    """Overrides of a sweep to continue, with defaults that were others when it began.

    Args:
        name: Its name.
        storage: Folder of all runs.
        overrides: What the command gives.
    """
    folder = storage.absolute() / check_run_name(name, "--resume")
    require_inside(folder, storage.absolute(), f"--resume {name}")
    path = folder / PLAN
    asked = any(item.startswith("sweep.pruner") for item in overrides)
    if asked or not path.is_file():
        return list(overrides)
    stored = read_stored(path, StoredPlan).recipe.get("pruner", {})
    # A value of 1 is left out: all sweeps had it before there was the field.
    return [*overrides, *(() if "grace" in stored else ("sweep.pruner.grace=1",))]


def _unknown_sweep(name: str, storage: Path) -> ConfigError:
    known = sorted(entry.parent.name for entry in storage.glob(f"*/{PLAN}"))
    return ConfigError(
        f"--resume {name}: no such sweep in {storage}; there are: {', '.join(known) or 'none'}"
    )


def address_inside(path: Path) -> str:
    """The address of a study that lies in its sweep's folder."""
    return sqlite_address(path / "study.db")


def _new_folder(plan: SweepPlan, storage: Path, name: str | None) -> Path:
    if name is None:
        made = f"sweep-{plan.recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        return make_folder(storage, check_run_name(made, "the sweep's name"))
    path = storage / check_run_name(name, "the sweep's name")
    if (path / PLAN).exists():
        raise ConfigError(f"{path}: there is a sweep of this name; continue it with --resume")
    return path


def _data_digest(path: str) -> str | None:
    """Digest of the packed data; None where it cannot be opened, which others say."""
    try:
        return PackedDataset.open(path).digest
    except (ValueError, OSError):
        return None


def _with_data_moved(base: str, before: str | None, plan: SweepPlan) -> str:
    """The base of a sweep's beginning, with the data where it lies now if that is the same data.

    Args:
        base: As YAML.
        before: Digest of the data it began with; None where an earlier version began it.
        plan: The sweep as it is continued.
    """
    then, now = load_resolved(base), plan.base.config.data.path
    if then.config.data.path == now:
        return base
    known = before or _data_digest(then.config.data.path)
    if known is None or known != _data_digest(now):
        return base
    return dump(override(then, {"data.path": now}, "moved data").config)


def _read_plan(path: Path, now: dict, plan: SweepPlan, trials: int | None) -> dict:
    resume = path.name
    if not (path / PLAN).is_file():
        raise _unknown_sweep(resume, path.parent)
    before = read_stored(path / PLAN, StoredPlan).model_dump(exclude_unset=True)
    # Fields that came later have their defaults in a plan of an earlier version.
    before["base"] = dump(load_resolved(before["base"]).config)
    before["base"] = _with_data_moved(before["base"], before.get("data_digest"), plan)
    for part, word in (("recipe", "recipe"), ("base", "base experiment or overrides")):
        if before[part] != now[part]:
            raise ConfigError(
                f"--resume {resume}: its {word} differs from the one it began with: "
                f"{_differences(before[part], now[part])}"
            )
    if "study" in before and before["study"] != now["study"]:
        then, today = (part["study"] or "the sweep's folder" for part in (before, now))
        raise ConfigError(
            f"--resume {resume}: its study lies in {then}, and SPIKESEG_STUDY now makes it "
            f"{today}; set or unset it as when the sweep began"
        )
    return {**now, "trials": trials or before["trials"]}


def _differences(before: Any, now: Any) -> str:
    """Describe the settings that differ, with both values; the first few where there are many."""
    old, new = (dict(_leaves("", _parse(part))) for part in (before, now))
    differences = [
        f"{key} was {old.get(key, 'not given')}, is {new.get(key, 'not given')}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]
    hidden = len(differences) - _SHOWN_DIFFERENCES
    more = f"; and {hidden} more" if hidden > 0 else ""
    return "; ".join(differences[:_SHOWN_DIFFERENCES]) + more


def _parse(part: Any) -> Any:
    return yaml.safe_load(part) if isinstance(part, str) else part


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), item)
    else:
        yield prefix, json.dumps(value)


def _locked(path: Path) -> ExitStack:
    """The lock of a sweep, which says who holds it."""
    lock, file = ExitStack(), path / LOCK
    try:
        lock.enter_context(hold_lock(file, wait=False))
    except BlockingIOError as error:
        holder = file.read_text().strip()
        raise ConfigError(f"{path}: another driver is at work on this sweep ({holder})") from error
    file.write_text(f"host {socket.gethostname()}, process {os.getpid()}\n")
    return lock
