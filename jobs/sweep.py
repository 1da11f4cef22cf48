"""`spikeseg sweep`: search a space of experiments for several objectives."""

import difflib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..platform.config.command_lines import command_line
from .cli import NearestGroup, run
from .display.progress import open_progress
from .display.sentences import fill_lines
from .options import (
    overrides_argument,
    plain_logging,
    print_warning,
    storage_option,
)


class _SweepGroup(NearestGroup):
    """`sweep RECIPE` runs a sweep; `sweep status NAME` and its like steer one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take whatever names no command for the arguments of a run."""
        verbs = [name for name in self.list_commands(ctx) if name != _RUN]
        if args and args[0] in verbs:
            if Path(args[0]).is_file():
                ctx.fail(f"{args[0]!r} is a command and a file here; give the file as ./{args[0]}")
            return super().parse_args(ctx, args)
        near = difflib.get_close_matches(args[0], verbs, n=1, cutoff=0.7) if args else []
        if near and args[0].isalpha() and not Path(args[0]).exists():
            ctx.fail(f"no sweep and no command {args[0]!r}, did you mean {near[0]!r}?")
        return super().parse_args(ctx, [_RUN, *args])


_RUN = "run"


@click.group("sweep", cls=_SweepGroup, add_help_option=False)
def command() -> None:
    """Search a space of experiments, or look at and steer a sweep that runs."""


@command.command(_RUN, hidden=True)
@click.argument("recipe", required=False)
@overrides_argument
@click.option("--trials", type=click.IntRange(1), help="Trials in all; the recipe's if not given.")
@click.option("--resume", metavar="SWEEP", help="Continue this sweep.")
@click.option("--name", help="Name of a new sweep; made of recipe and time if not given.")
@click.option("--concurrency", type=click.IntRange(1), help="Trials at a time.")
@click.option("--here", is_flag=True, help="One trial after the other in this process, no Ray.")
@click.option("--dry-run", is_flag=True, help="Say what would be tried and what it costs.")
@storage_option
def run_sweep(  # noqa: PLR0913
    recipe: str | None,
    overrides: tuple[str, ...],
    trials: int | None,
    resume: str | None,
    name: str | None,
    concurrency: int | None,
    here: bool,
    dry_run: bool,
    storage: Path,
) -> int:
    """Run the sweep RECIPE (a shipped name or a YAML file), or continue one with --resume SWEEP.

    Values of every trial's experiment are given as FIELD=VALUE, those of the recipe itself as
    sweep.FIELD=VALUE. A sweep that runs is steered by `spikeseg sweep status|stop|add NAME`.
    """
    plain_logging()
    if dry_run:
        if recipe is None or resume is not None:
            raise click.UsageError("--dry-run is of a new sweep: give its recipe")
        _rehearse(recipe, overrides, trials=trials, concurrency=concurrency, here=here)
        return 0
    how = {"trials": trials, "name": name, "concurrency": concurrency, "here": here}
    return _start(recipe, overrides, resume=resume, storage=storage, **how)


def _start(
    recipe: str | None,
    overrides: tuple[str, ...],
    *,
    resume: str | None,
    storage: Path,
    **how: Any,
) -> int:
    """Run or continue a sweep; returns the exit code."""
    from ..platform.cluster.signals import first_of_signals
    from ..platform.train.faults.preemption import LEAVE_SIGNALS

    if resume is not None and recipe is not None and "=" in recipe:
        recipe, overrides = None, (recipe, *overrides)
    if (recipe is None and resume is None) or (how["name"] is not None and resume is not None):
        raise click.UsageError("give a recipe, or --resume SWEEP; --name is of a new sweep")

    def again(name: str) -> str:
        if recipe is None:
            return command_line("sweep", "--resume", name, "--storage", storage.absolute())
        limits = {key: how[key] for key in ("concurrency", "here")}
        return continuation(recipe, overrides, name, storage, **limits)

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
            return _sweep(again, recipe, overrides, storage=storage, resume=resume, **how)
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
        print(fill_lines(f"{outcome.leader[0].upper()}{outcome.leader[1:]}."))
    print(outcome.spent)
    if outcome.best is None:
        print(outcome.missing)
    else:
        word = f"{outcome.name}/{outcome.best.number}"
        print(f"first training of it: {word}" if outcome.repeated else f"highest: {word}")
        for key, value in outcome.best.params.items():
            print(f"  {key} = {f'{value:.3g}' if isinstance(value, float) else value}")
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


def _rehearse(
    recipe: str,
    overrides: Sequence[str],
    *,
    trials: int | None,
    concurrency: int | None,
    here: bool,
) -> None:
    """Print what a sweep would try first and what it would cost; nothing is left behind."""
    from ..platform.search import rehearsal
    from ..platform.search.sweep import check_trials
    from ..platform.search.sweep_file.plan import load_sweep
    from ..platform.search.sweep_file.point_names import format_point

    plan = load_sweep(recipe, overrides)
    check_trials(plan)
    count = trials or plan.trials
    print(f"{plan.recipe.name}: {count} trials over {plan.recipe.base}, {plan.recipe.sampler.name}")
    for line in rehearsal.describe_space(plan):
        print(f"  {line}")
    points = rehearsal.propose_first(plan, count)
    rest = count - len(points)
    print(f"first {len(points)} points" + (f", {rest} more follow:" if rest > 0 else ":"))
    for number, point in enumerate(points):
        print(f"  {number}: {format_point(point)}")
    costs = [
        rehearsal.measure_cost(plan, point) for point in rehearsal.choose_measured(plan, points[0])
    ]
    at_once = rehearsal.count_at_once(plan, concurrency, here=here)
    print(rehearsal.describe_costs(plan, costs, trials=count, at_once=min(at_once, count)))
    print("nothing was started")


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


@command.command("status")
@click.argument("name", metavar="SWEEP")
@storage_option
def status(name: str, storage: Path) -> None:
    """Say how far SWEEP is, what runs, and which trials failed by what."""
    from collections import Counter

    from ..platform.runs.find_run import find_run
    from ..platform.runs.run_state import run_state
    from ..platform.search.steering import find_driver, read_added
    from ..platform.search.stored_sweep import read_sweep
    from ..platform.search.study.failure_cause import describe_cause, failure_cause
    from ..platform.search.sweep_groups import measure_groups
    from ..platform.search.sweep_page import count_configurations
    from ..platform.search.sweep_results import why_no_result
    from ..platform.search.sweep_standing import front_trials
    from ..platform.search.sweep_status import fit_line, format_group, format_trial

    plain_logging()
    found = find_run(name, storage, kinds=("sweep",))
    sweep = read_sweep(found.folder)
    holder = find_driver(sweep.folder)
    added = len(read_added(sweep.folder))
    counts = Counter(item.state for item in sweep.records.values())
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none yet"
    more = f" and {added} given by hand" if added else ""
    several = sweep.plan.recipe.replicates is not None
    seeds = " and their further seeds" if several else ""
    print(f"{sweep.folder.name}: {states}, of {sweep.trials} trials{more}{seeds}")
    again = command_line("sweep", "--resume", sweep.folder.name, "--storage", storage.absolute())
    begun = count_configurations(sweep.records)
    whole = begun == sweep.trials + added and run_state(found) == "finished"
    to_do = "every trial has ended" if whole else f"continue: {again}"
    print(f"driver: {holder or f'none; {to_do}'}")
    ended = sum(item.state not in ("RUNNING", "WAITING") for item in sweep.records.values())
    missing = why_no_result(sweep.records) if ended else ""
    if missing:
        print(missing)
    groups = measure_groups(sweep.plan, sweep.records)
    if groups is not None and groups.groups:
        for group in groups.groups:
            if group.front:
                print(f"front:   {format_group(sweep.plan, group)}")
    else:
        for item in front_trials(sweep.plan, sweep.records):
            print(f"front:   {format_trial(sweep.plan, item)}")
    for item in sweep.records.values():
        if item.state == "RUNNING":
            print(f"running: {format_trial(sweep.plan, item)}")
        if item.state == "FAIL":
            cause = describe_cause(failure_cause(item.reason))
            print(fit_line(f"failed:  trial {item.number} ({cause}): {item.reason}"))


@command.command("stop")
@click.argument("name", metavar="SWEEP")
@storage_option
def stop(name: str, storage: Path) -> None:
    """Have the driver of SWEEP end its trials with checkpoints; --resume continues it."""
    from ..platform.search.steering import ask_to_stop

    sweep = _read(name, storage)
    holder = ask_to_stop(sweep.folder)
    if holder is None:
        print(f"{sweep.folder.name}: nobody is at work on it")
        return
    print(
        f"{sweep.folder.name}: asked its driver to stop ({holder}); trials keep their checkpoints"
    )
    line = command_line("sweep", "--resume", sweep.folder.name, "--storage", storage.absolute())
    print(f"continue: {line}")


@command.command("add")
@click.argument("name", metavar="SWEEP")
@click.argument("items", nargs=-1, required=True, metavar="FIELD=VALUE...")
@storage_option
def add(name: str, items: tuple[str, ...], storage: Path) -> None:
    """Give SWEEP a point to try next, on top of its trials; what is left out is drawn."""
    from ..platform.search.steering import add_point, find_driver
    from ..platform.search.sweep_file.point_names import format_point

    sweep = _read(name, storage)
    _, point = add_point(sweep, items)
    print(f"{sweep.folder.name}: will try {format_point(point)}")
    if find_driver(sweep.folder) is None:
        line = command_line("sweep", "--resume", sweep.folder.name, "--storage", storage.absolute())
        print(f"nobody is at work on it; continue: {line}")


def _read(name: str, storage: Path) -> Any:
    """The sweep that a word names, as it stands."""
    from ..platform.runs.find_run import find_run
    from ..platform.search.stored_sweep import read_sweep

    plain_logging()
    return read_sweep(find_run(name, storage, kinds=("sweep",)).folder)


if __name__ == "__main__":
    run(command)
