"""`spikeseg evaluate`: score a checkpoint on a packed data set."""

import json
from pathlib import Path

import click

from .cli import run
from .options import class_lines, overrides_argument, plain_logging


@click.command("evaluate")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@overrides_argument
@click.option("--split", default="test", show_default=True, help="Split to score.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(checkpoint: Path, overrides: tuple[str, ...], split: str, as_json: bool) -> None:
    """Score CHECKPOINT (a run's folder, or one of its checkpoints), per class."""
    from ..platform.runs.predict_images import evaluate_checkpoint

    plain_logging()
    report = evaluate_checkpoint(checkpoint, overrides, split=split)
    if as_json:
        print(json.dumps(report, indent=1))
        return
    print(f"{report['checkpoint']}: {split} split, {report['rows']} rows")
    print(class_lines(report["classes"]))
    for name, value in report["metrics"].items():
        print(f"{name:12} {value:.4f}")


if __name__ == "__main__":
    run(command)
