"""`spikeseg train`: train a recipe, choose on val, score test once."""

from pathlib import Path

import click

from .cli import run
from .options import (
    class_lines,
    command_line,
    overrides_argument,
    plain_logging,
    progress_printer,
    storage_option,
)


@click.command("train")
@click.argument("recipe", required=False)
@overrides_argument
@click.option(
    "--resume", metavar="NAME", help="Continue a run of this name, or of this address in a mirror."
)
@storage_option
def command(
    recipe: str | None, overrides: tuple[str, ...], resume: str | None, storage: Path
) -> None:
    """Train RECIPE (a shipped name or a YAML file), or continue a run with --resume NAME."""
    from ..platform.config import load_experiment
    from ..platform.train.trainer import resume_training, train

    plain_logging()
    if (recipe is None) == (resume is None):
        raise click.UsageError("give a recipe, or --resume NAME, and not both")
    if resume is not None:
        outcome = resume_training(resume, storage=storage, progress=progress_printer())
    else:
        assert recipe is not None
        resolved = load_experiment(recipe, overrides)
        outcome = train(resolved, storage=storage, progress=progress_printer())
    print(f"\n{outcome.split} split, checkpoint of step {outcome.best_step} (best val mIoU):")
    print(class_lines(outcome.classes))
    for name, value in outcome.metrics.items():
        print(f"{name:20} {value:.4g}")
    print(f"\nrun:           {outcome.folder}")
    print(f"contact sheet: {outcome.contact_sheet}")
    print(f"curves:        {outcome.folder / 'figures' / 'curves.png'}")
    home = ("--storage", storage.absolute())
    print(f"continue:      {command_line('train', '--resume', outcome.name, *home)}")
    print(f"compare:       {command_line('ui', *home)}")


if __name__ == "__main__":
    run(command)
