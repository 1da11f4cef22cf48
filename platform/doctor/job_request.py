"""What a job is asked to do: checked on the machine that sends it, with its own files beside it."""

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ..cluster.head_checks import Dashboard
from ..cluster.head_nodes import may_grow, read_head_nodes
from ..cluster.loopback import host_of, is_loopback
from ..config.data_values import FROM_DATA
from ..config.errors import ConfigError
from ..config.recipes import PLACES, flatten_recipe, load_experiment, recipe_names, split_override
from ..config.storage import STORAGE
from ..search.sweep_file.flatten import flatten_sweep
from ..search.sweep_file.plan import load_sweep
from ..tracking.job_names import job_arguments
from .cluster_checks import find_missing_room
from .machine import read_machine
from .subject import Subject

_RECIPE = "recipe.yaml"
TRAINING_VERBS = ("train", "sweep")


class JobRequest(NamedTuple):
    """A job as it is sent.

    Attributes:
        arguments: The verb and its arguments, for the head.
        files: Text by file name of recipe and sweep files of one's own; the job runs beside them.
        name: Of the run or the sweep; empty for other verbs.
        storage: Folder of all runs; empty for other verbs.
        subject: What is to run; None where that is not known here.
    """

    arguments: list[str]
    files: Mapping[str, str] = MappingProxyType({})
    name: str = ""
    storage: str = ""
    subject: Subject | None = None


def prepare_job(
    arguments: Sequence[str],
    options: Mapping[str, Any],
    dashboard: Dashboard,
    tell: Callable[[str], None],
) -> JobRequest:
    """Check a verb's request, and make it one that means the same on the head.

    Args:
        arguments: The verb and its arguments, as typed.
        options: What the verb's command line says, by parameter; its form was checked.
        dashboard: Of the head.
        tell: Takes a line about what was chosen here.

    Raises:
        ValueError: Where recipe, field, sweep or a path cannot be; nothing was sent.
    """
    verb, sent = arguments[0], job_arguments(arguments)
    if verb not in TRAINING_VERBS:
        return JobRequest(sent)
    remote = not is_loopback(host_of(dashboard.address))
    storage = str(options["storage"])
    if not any(item.partition("=")[0] == "--storage" for item in arguments):
        sent += ["--storage", _choose_storage(storage, remote)]
        tell(f"--storage {storage}")
    recipe, overrides = options["recipe"], list(options["overrides"])
    if options["resume"] is not None:
        return JobRequest(sent, name=str(options["resume"]), storage=storage)
    if remote:
        for item in overrides:
            _require_meant_there(item)
    files: dict[str, str] = {}
    if verb == "sweep":
        there, files = flatten_sweep(recipe)
    else:
        there = recipe if recipe in recipe_names() else _RECIPE
        if there == _RECIPE:
            files[there] = flatten_recipe(recipe)
    sent = [there if _is_recipe(item, recipe) else item for item in sent]
    subject = _read_subject(verb, recipe, overrides, Path(storage))
    name = options["name"]
    if name is None:
        name = _make_name(verb, recipe, subject)
        sent += ["--name", name]
    return JobRequest(sent, files, name, storage, subject)


def _choose_storage(default: str, remote: bool) -> str:
    if remote and not os.environ.get(STORAGE):
        raise ValueError(
            "--storage: must be given to a head on another machine: a folder that all its nodes "
            f"see, or set {STORAGE}"
        )
    return default


def _is_recipe(item: str, recipe: str) -> bool:
    return item in (recipe, str(Path(recipe).absolute()))


def _require_meant_there(item: str) -> None:
    """Refuse a relative path that neither is here nor can be meant on another machine."""
    key, value = split_override(item)
    if key not in PLACES or "://" in value or value[:1] in ("/", "~", "$"):
        return
    if value not in ("", "null", "~") and not Path(value).exists():
        raise ValueError(
            f"{item}: a relative path that is not here, and a job on another machine has a folder "
            "of its own: give the absolute path that its nodes see"
        )


def _read_subject(
    verb: str, recipe: str, overrides: Sequence[str], storage: Path
) -> Subject | None:
    """The experiment or sweep; None where values are picked from data that is not here.

    Raises:
        ConfigError: Where the request is wrong.
    """
    try:
        if verb == "sweep":
            plan = load_sweep(recipe, overrides)
            return Subject(storage, read_machine(), plan=plan, resolved=plan.base)
        return Subject(storage, read_machine(), resolved=load_experiment(recipe, overrides))
    except ConfigError as error:
        if _asks_the_data(verb, recipe) and "data.path" in str(error):
            return None
        raise


def _asks_the_data(verb: str, recipe: str) -> bool:
    texts = list(flatten_sweep(recipe)[1].values()) if verb == "sweep" else []
    if verb == "train":
        texts.append(flatten_recipe(recipe))
    return any(FROM_DATA in text for text in texts)


def _make_name(verb: str, recipe: str, subject: Subject | None) -> str:
    stem = Path(recipe).stem
    if subject is not None and subject.plan is not None:
        stem = subject.plan.recipe.name
    elif subject is not None and subject.config is not None:
        stem = subject.config.name
    prefix = "sweep-" if verb == "sweep" else ""
    return f"{prefix}{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def check_room(
    request: JobRequest, dashboard: Dashboard, max_nodes: int | None, tell: Callable[[str], None]
) -> None:
    """Refuse a request that the head's nodes have no room for, and cannot grow to have.

    Args:
        request: The job.
        dashboard: Of the head.
        max_nodes: Nodes that the cluster may grow to; None where nobody said.
        tell: Takes a line where room is waited for.

    Raises:
        ValueError: Has the sum that does not fit.
    """
    if request.subject is None:
        return
    nodes = [node.resources for node in read_head_nodes(dashboard)]
    refusal = find_missing_room(request.subject, nodes)
    if not refusal:
        return
    if max_nodes is not None and nodes:
        largest = max(nodes, key=lambda node: node.get("CPU", 0.0))
        grown = [*nodes, *[largest] * max(0, max_nodes - len(nodes))]
        if not find_missing_room(request.subject, grown):
            tell(
                f"no room yet on {len(nodes)} nodes; the job waits for the cluster to grow "
                f"(--max-nodes {max_nodes})"
            )
            return
    elif max_nodes is None and may_grow(dashboard):
        tell(
            f"no room yet on {len(nodes)} nodes; the job waits for the cluster to grow ({refusal})"
        )
        return
    raise ValueError(f"{dashboard.address}: {refusal}")
