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
    """Train RECIPE (a shipped name or a YAML file), or continue a run with --resume NAME.

    A continued run takes FIELD=VALUE of settings that decide no result, such as trainer.workers.
    """
    from ..platform.config.recipes import load_experiment
    from ..platform.train.trainer import resume_training, train

    plain_logging()
    if resume is not None and recipe is not None and "=" in recipe:
        recipe, overrides = None, (recipe, *overrides)
    if (recipe is None) == (resume is None):
        raise click.UsageError("give a recipe, or --resume NAME, and not both")
    if resume is not None:
        outcome = resume_training(resume, overrides, storage=storage, progress=progress_printer())
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
    print(f"evaluate:      {command_line('evaluate', outcome.folder)}")
    print(f"go on from it: {command_line('train', 'RECIPE', f'init.segmentor={outcome.folder}')}")
    print(f"compare:       {command_line('ui', '--storage', storage.absolute())}")


if __name__ == "__main__":
    run(command)
