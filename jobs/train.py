"""`spikeseg train`: train a recipe, choose on val, score test once."""

import json
from pathlib import Path

import click

from ..platform.config.command_lines import command_line
from .cli import run
from .display.class_table import format_class_table
from .display.progress import open_progress
from .options import (
    overrides_argument,
    plain_logging,
    print_warning,
    storage_option,
)


@click.command("train")
@click.argument("recipe", required=False)
@overrides_argument
@click.option(
    "--resume", metavar="RUN", help="Continue this run, or the one at this address in a mirror."
)
@click.option("--name", help="Name of a new run; made of recipe and time if not given.")
@click.option(
    "--profile",
    is_flag=True,
    help="Trace two steps with torch's profiler, the third and the fourth.",
)
@click.option(
    "--profile-steps", metavar="FIRST-LAST", help="Trace these steps, such as 101-103; at most 10."
)
@storage_option
def command(  # noqa: PLR0913 (one for each option)
    recipe: str | None,
    overrides: tuple[str, ...],
    resume: str | None,
    name: str | None,
    profile: bool,
    profile_steps: str | None,
    storage: Path,
) -> int:
    """Train RECIPE (a shipped name or a YAML file), or continue a run with --resume RUN.

    init.segmentor=RUN starts from the weights of another run. A continued run takes FIELD=VALUE
    of settings that decide no result, such as trainer.workers. Exit code 1 where training failed,
    or something that was to be kept (records, pictures, a mirror's copies) is lost; what is only
    not sent to MLflow yet is safe, and no failure.
    """
    from ..platform.config.recipes import load_experiment
    from ..platform.doctor.run_checks import check_before_start
    from ..platform.runs.find_run import find_run_to_resume, resolve_initial_run
    from ..platform.tracking.pages.page_links import describe_run_page
    from ..platform.tracking.step_trace import VIEWER, TracedSteps, list_traces, parse_steps
    from ..platform.train.trainer import resume_training, train

    plain_logging()
    traced = TracedSteps() if profile else None
    if profile_steps is not None:
        traced = parse_steps(profile_steps, "--profile-steps")
    if resume is not None and recipe is not None and "=" in recipe:
        recipe, overrides = None, (recipe, *overrides)
    if (recipe is None) == (resume is None):
        raise click.UsageError("give a recipe, or --resume RUN, and not both")
    if resume is not None:
        if name is not None:
            raise click.UsageError("--name is of a new run, and --resume continues one")
        known, storage = find_run_to_resume(resume, storage, kind="run")
        with open_progress() as display:
            outcome = resume_training(
                known, overrides, storage=storage, progress=display, profile=traced
            )
    else:
        assert recipe is not None
        resolved = load_experiment(recipe, resolve_initial_run(overrides, storage))
        for key, value, reason in resolved.picked:
            print(f"{key}={json.dumps(value)}  # {reason}")
        check_before_start(resolved, storage, tell=print_warning)
        with open_progress() as display:
            outcome = train(resolved, storage=storage, name=name, progress=display, profile=traced)
    print(f"\n{outcome.split} split, checkpoint of step {outcome.best_step} (best val mIoU):")
    print(format_class_table(outcome.classes))
    for name, value in outcome.metrics.items():
        print(f"{name:20} {value:.4g}")
    home = ("--storage", storage.absolute())
    print(f"\nrun:           {outcome.name}")
    print(f"folder:        {outcome.folder}")
    print(f"contact sheet: {outcome.contact_sheet}")
    print(f"curves:        {outcome.folder / 'figures' / 'curves.png'}")
    for trace in list_traces(outcome.folder):
        print(f"profile:       {trace}    # opens at {VIEWER}")
    print(f"evaluate:      {command_line('evaluate', outcome.name, *home)}")
    # The run's own file: a recipe's name would leave out the fields that were changed.
    start = (outcome.folder / "config.yaml", f"init.segmentor={outcome.name}")
    print(f"go on from it: {command_line('train', *start, *home)}")
    print(f"compare:       {command_line('ui', *home)}")
    for line in describe_run_page(outcome.folder, storage):
        print(f"  {line}")
    if outcome.unsent:
        again = command_line("track", "sync", outcome.name, *home)
        print(f"\nnot everything reached MLflow yet; all of it is kept: {again}")
    lost = [*outcome.lost, *filter(None, [outcome.mirror_lacks])]
    for sentence in lost:
        print(f"\nLOST: {sentence}" if sentence in outcome.lost else f"\n{sentence}")
    return 1 if lost else 0


if __name__ == "__main__":
    run(command)
