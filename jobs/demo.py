"""`spikeseg demo`: the whole house once, on generated data: pack, train, search, evaluate, look."""

from pathlib import Path

import click

from ..platform.config.command_lines import command_line
from .cli import run
from .display.class_table import format_class_table
from .display.progress import open_progress
from .options import plain_logging, storage_option


@click.command("demo")
@storage_option
def command(storage: Path) -> None:
    """Pack shapes, train shapes_tiny on two workers, sweep six trials, evaluate the best."""
    from ..platform.demo import run_demo
    from ..platform.tracking.pages.page_links import describe_run_page

    plain_logging()
    with open_progress() as display:
        outcome = run_demo(storage, progress=display, show=display.show)
    home = ("--storage", storage.absolute())
    best = f"{outcome.recipe.parent.name}/{outcome.best.number}"
    print(f"\ntraining: test mIoU {outcome.trained['test/mIoU']:.2f}, run {outcome.run.name}")
    print(f"\nhighest of {outcome.trials} trials, one seed each, which may be chance: {best}")
    for key, value in outcome.best.params.items():
        print(f"  {key} = {value}")
    for key, value in outcome.best.values.items():
        print(f"  {key}: {value:.5g}")
    print(f"  test/mIoU: {outcome.report['metrics']['test/mIoU']:.5g}, per class:")
    print(format_class_table(outcome.report["classes"]))
    print(f"\ncontact sheet: {outcome.contact_sheet}")
    print(f"runs:          {command_line('runs', *home)}")
    print(f"evaluate:      {command_line('evaluate', best, *home)}")
    print(f"compare:       {command_line('ui', *home)}    (or: make ui)")
    for line in describe_run_page(outcome.recipe.parent, storage):
        print(f"  {line}")
    longer = command_line("train", outcome.recipe, "trainer.max_steps=600", *home)
    print(f"longer:        {longer}")


if __name__ == "__main__":
    run(command)
