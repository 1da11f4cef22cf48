"""Arguments that several verbs share.

RUN is a run's name or a unique prefix of it, a run's or a checkpoint's folder, a run's id in
MLflow, `SWEEP/TRIAL`, `SWEEP/best`, or `latest`.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..datasets.printable_text import make_printable
from ..platform.config.storage import default_storage
from ..platform.config.typed_paths import resolve_path


class TypedPath(click.Path):
    """A path that a person typed: absolute, `~` and variables filled in where nothing is called so.

    Args:
        options: Of `click.Path`, but `path_type`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Resolve the path, and check it as `click.Path` does."""
        try:
            return super().convert(resolve_path(value), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def storage_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--storage DIR`: where runs, checkpoints and the tracking database are kept."""
    return click.option(
        "--storage",
        type=TypedPath(file_okay=False),
        default=default_storage,
        show_default="$SPIKESEG_STORAGE or ./runs",
        help="Folder of all runs.",
    )(command)


def run_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `RUN`, passed as `word`: the run that the command is about."""
    return click.argument("word", metavar="RUN")(command)


def overrides_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `FIELD=VALUE...`: experiment values over the recipe's."""
    return click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")(command)


def address_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--address`: the dashboard of a head."""
    return click.option(
        "--address",
        help="The head's dashboard; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, "
        "http://127.0.0.1:8265.",
    )(command)


def env_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--env KEY`, passed as `names`: variables of this shell that are sent to a job."""
    return click.option(
        "--env",
        "names",
        multiple=True,
        metavar="KEY",
        help="Send this variable too; Ray's dashboard shows a job's variables.",
    )(command)


def plain_logging() -> None:
    """Send warnings to stderr, one line each."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def print_warning(line: str) -> None:
    """Print what a check before the start warns of, to stderr."""
    print(make_printable(f"spikeseg: warning: {line}"), file=sys.stderr)


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device` and `--threads`: what computes, whatever the run was trained on."""
    command = click.option(
        "--threads",
        type=click.IntRange(1),
        help="torch threads of one process.  [default: the run's]",
    )(command)
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        help="What computes.  [default: the run's, and the CPU where its GPU is missing]",
    )(command)


def runtime_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--runtime` and `--exported`: what runs the network."""
    command = click.option(
        "--exported",
        type=TypedPath(),
        help="File that `spikeseg export` wrote, for --runtime onnx or openvino.",
    )(command)
    return click.option(
        "--runtime",
        type=click.Choice(["torch", "onnx", "openvino"]),
        default="torch",
        show_default=True,
        help="What runs the network.",
    )(command)


def pool_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--processes` and `--ray`: where images are worked on side by side."""
    command = click.option(
        "--ray",
        "on_ray",
        is_flag=True,
        help="Over the Ray cluster of RAY_ADDRESS, or a local one; all nodes see the files.",
    )(command)
    return click.option(
        "--processes",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Processes, or Ray workers; 0 for one a CPU.",
    )(command)
