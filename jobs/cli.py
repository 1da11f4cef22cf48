"""The `spikeseg` command: verbs are loaded when they are called, errors are one sentence."""

import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..datasets.printable_text import make_printable
from .display.lossy_output import keep_working_without_readers

_VERBS = {
    "benchmark": "benchmark.verbs",
    "cluster": "cluster",
    "config": "config",
    "convert": "convert",
    "data": "data",
    "demo": "demo",
    "doctor": "doctor",
    "energy": "energy",
    "evaluate": "evaluate",
    "export": "export",
    "jobs": "cluster_jobs",
    "predict": "predict",
    "replay": "replay",
    "report": "report",
    "runs": "runs",
    "submit": "submit",
    "sweep": "sweep",
    "table": "table",
    "track": "track",
    "train": "train",
    "ui": "ui",
}


class NearestGroup(click.Group):
    """A group that names the nearest of its commands where it is asked for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; a misspelt one is answered with the nearest."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1, cutoff=0.5)
            end = f", did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no such command {name!r}{end or f'; there are: {self._names(ctx)}'}")
        return super().resolve_command(ctx, args)

    def _names(self, ctx: click.Context) -> str:
        return ", ".join(self.list_commands(ctx))


class VerbGroup(NearestGroup):
    """A group whose commands live in one file a verb, loaded when they are called.

    Args:
        verbs: Name of each verb -> its module below `jobs`.
        settings: As `click.Group` takes them.
    """

    def __init__(self, *, verbs: Mapping[str, str], **settings: Any) -> None:
        super().__init__(**settings)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the verbs."""
        return sorted(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a verb."""
        if cmd_name not in self._verbs:
            return None
        module = importlib.import_module(f"spikeseg.jobs.{self._verbs[cmd_name]}")
        return module.command


@click.group(
    cls=VerbGroup,
    verbs=_VERBS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="spikeseg")
def root() -> None:
    """Search, train and compare spiking image segmentors (Spike2Former)."""


def run(command: click.Command, arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit code 2 for a wrong request, 1 for failed work.

    Args:
        command: The command.
        arguments: Its arguments; the process's own if not given.
    """
    try:
        result: Any = command.main(
            args=None if arguments is None else list(arguments), standalone_mode=False
        )
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except ValueError as error:
        _print_error(error)
        sys.exit(2)
    except (RuntimeError, OSError) as error:
        _print_error(error)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def main() -> None:
    """Entry point of the `spikeseg` command."""
    with keep_working_without_readers():
        run(root)


def _print_error(error: BaseException) -> None:
    if os.environ.get("SPIKESEG_TRACEBACK"):
        raise error
    print(make_printable(f"spikeseg: {error}"), file=sys.stderr)


if __name__ == "__main__":
    main()
