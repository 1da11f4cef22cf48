"""`spikeseg sweep`: search a space of experiments for several objectives."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .cli import run
from .display.progress import open_progress
from .options import (
    command_line,
    overrides_argument,
    plain_logging,
    print_warning,
    storage_option,
)


@click.command("sweep")
@click.argument("recipe", required=False)
@overrides_argument
@click.option("--trials", type=click.IntRange(1), help="Trials in all; the recipe's if not given.")
@click.option("--resume", metavar="SWEEP", help="Continue this sweep.")
@click.option("--name", help="Name of a new sweep; made of recipe and time if not given.")
@click.option("--concurrency", type=click.IntRange(1), help="Trials at a time.")
@click.option("--here", is_flag=True, help="One trial after the other in this process, no Ray.")
@storage_option
def command(  # noqa: PLR0913
    recipe: str | None,
    overrides: tuple[str, ...],
    trials: int | None,
    resume: str | None,
    name: str | None,
    concurrency: int | None,
    here: bool,
    storage: Path,
) -> int:
    """Run the sweep RECIPE (a shipped name or a YAML file), or continue one with --resume SWEEP.

    Values of every trial's experiment are given as FIELD=VALUE, those of the recipe itself as
    sweep.FIELD=VALUE.
    """
    from ..platform.cluster.signals import first_of_signals
    from ..platform.train.faults.preemption import LEAVE_SIGNALS

    plain_logging()
    if resume is not None and recipe is not None and "=" in recipe:
        recipe, overrides = None, (recipe, *overrides)
    if (recipe is None and resume is None) or (name is not None and resume is not None):
        raise click.UsageError("give a recipe, or --resume SWEEP; --name is of a new sweep")

    def again(name: str) -> str:
        if recipe is None:
            return command_line("sweep", "--resume", name, "--storage", storage.absolute())
        return continuation(recipe, overrides, name, storage, concurrency=concurrency, here=here)

    try:
        with first_of_signals([n for n in LEAVE_SIGNALS if n != signal.SIGINT], _exit_on_signal):
            from ..platform.runs.find_run import find_run_to_resume, resolve_initial_run

            if resume is not None:
                resume, storage = find_run_to_resume(resume, storage, kind="sweep")
                if recipe is None:
                    from ..platform.search.sweep_folder import read_request

                    request = read_request(resume, storage)
                    recipe, overrides = request.recipe, (*request.overrides, *overrides)
            assert recipe is not None
            overrides = resolve_initial_run(overrides, storage)
            return _sweep(
                again,
                recipe,
                overrides,
                trials=trials,
                storage=storage,
                resume=resume,
                name=name,
                concurrency=concurrency,
                here=here,
            )
    except (SystemExit, KeyboardInterrupt) as left:
        # A signal before Ray starts, or Ray's own answer to one while it starts or ends.
        caught = signal.SIGINT
        if isinstance(left, _SignalExit):
            caught = left.number
        elif isinstance(left, SystemExit):
            if left.code != signal.SIGTERM:
                raise
            caught = signal.SIGTERM
        print(f"spikeseg: stopped by {caught.name}, no trial was running", file=sys.stderr)
        if resume is not None:
            print(f"continue: {again(resume)}", file=sys.stderr)
        return 128 + caught


def _sweep(
    again: Callable[[str], str], recipe: str, overrides: Sequence[str], *, storage: Path, **how: Any
) -> int:
    """Run the sweep and say what came of it; returns the exit code."""
    # Seconds on a slow disk, in which a signal may come.
    from ..platform.doctor.run_checks import check_before_start
    from ..platform.search.sweep import SweepOptions, SweepUnfinishedError, sweep
    from ..platform.search.sweep_file.plan import load_sweep
    from ..platform.tracking.pages.page_links import describe_run_page

    if how["resume"] is None:
        check_before_start(
            load_sweep(recipe, overrides),
            storage,
            concurrency=1 if how["here"] else how["concurrency"],
            tell=print_warning,
        )
    try:
        with open_progress() as display:
            options = SweepOptions(storage=storage, **how)
            outcome = sweep(recipe, overrides, options, progress=display, show=display.show)
    except SweepUnfinishedError as error:
        print(f"spikeseg: {error}", file=sys.stderr)
        print(f"continue: {again(error.name)}", file=sys.stderr)
        if os.environ.get("SPIKESEG_TRACEBACK"):
            raise
        return error.code
    home = ("--storage", storage.absolute())
    states = ", ".join(f"{count} {state}" for state, count in outcome.counts.items())
    print(f"\n{outcome.name}: {states}")
    if outcome.leader:
        print(f"{outcome.leader[0].upper()}{outcome.leader[1:]}.")
    print(outcome.spent)
    if outcome.best is None:
        print(outcome.missing)
    else:
        word = f"{outcome.name}/{outcome.best.number}"
        print(f"best trial: {word}")
        for key, value in outcome.best.params.items():
            print(f"  {key} = {value}")
        for key, value in outcome.best.values.items():
            print(f"  {key}: {value:.5g}")
        print(f"score it: {command_line('evaluate', word, *home)}")
        print(f"train it: {command_line('train', outcome.folder / 'best.yaml', *home)}")
    print(f"results:  {outcome.folder}")
    print(f"trials:   {command_line('runs', '--sweep', outcome.name, *home)}")
    print(f"continue: {again(outcome.name)}")
    print(f"compare:  {command_line('ui', *home)}")
    for line in describe_run_page(outcome.folder, storage):
        print(f"  {line}")
    for sentence in outcome.lost:
        print(f"LOST: {sentence}")
    return 1 if outcome.lost or set(outcome.counts) == {"FAIL"} else 0


class _SignalExit(SystemExit):
    """The end of the process by a signal, whose number an exit code alone would not tell."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = signal.Signals(number)


def _exit_on_signal(number: int) -> None:
    raise _SignalExit(number)


def continuation(
    recipe: str,
    overrides: Sequence[str],
    name: str,
    storage: Path,
    *,
    concurrency: int | None = None,
    here: bool = False,
) -> str:
    """The command that continues a sweep, from any folder.

    Args:
        recipe: As the sweep was started.
        overrides: Likewise.
        name: The sweep's name.
        storage: Folder of all runs.
        concurrency: As the sweep was started.
        here: Likewise.
    """
    from ..platform.config.recipes import ConfigError
    from ..platform.search.study.study_storage import read_address
    from ..platform.search.sweep_file.plan import make_request

    request = make_request(recipe, overrides)
    limit = () if concurrency is None else ("--concurrency", str(concurrency))
    engine = (*limit, *(("--here",) if here else ()))
    home = ("--storage", storage.absolute())
    line = command_line(
        "sweep", request.recipe, *request.overrides, "--resume", name, *engine, *home
    )
    try:
        study = read_address()
    except ConfigError:  # which the sweep refuses, where it comes so far
        study = None
    if study is None or study == os.environ["SPIKESEG_STUDY"]:
        return line
    return f"SPIKESEG_STUDY={shlex.quote(study)} {line}"


if __name__ == "__main__":
    run(command)
