"""`spikeseg evaluate`: score a checkpoint on a packed data set."""

import json
from pathlib import Path

import click

from .cli import run
from .display.class_table import format_class_table
from .options import overrides_argument, plain_logging, run_argument, storage_option


@click.command("evaluate")
@run_argument
@overrides_argument
@click.option("--split", default="test", show_default=True, help="Split to score.")
@click.option("--no-operations", is_flag=True, help="Do not count operations.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@storage_option
def command(
    word: str,
    overrides: tuple[str, ...],
    split: str,
    no_operations: bool,
    as_json: bool,
    storage: Path,
) -> None:
    """Score the best checkpoint of RUN, or the checkpoint that RUN names, on a split, per class.

    RUN is a run's name or a unique prefix of it, the folder of a run or checkpoint, a run's id in
    MLflow, SWEEP/TRIAL, SWEEP/best, or latest; `spikeseg runs` lists them.
    """
    from ..platform.runs.find_run import find_run
    from ..platform.runs.predict_images import evaluate_checkpoint

    plain_logging()
    report = evaluate_checkpoint(
        find_run(word, storage).weights, overrides, split=split, operations=not no_operations
    )
    if as_json:
        print(json.dumps(report, indent=1))
        return
    print(f"{report['checkpoint']}: {split} split, {report['rows']} rows")
    print(format_class_table(report["classes"]))
    for name, value in report["metrics"].items():
        print(f"{name:12} {value:.4f}")
    if "energy_mj" in report:
        print(f"{'energy':12} {report['energy_mj']:.6f} mJ an image (rule paper)")


if __name__ == "__main__":
    run(command)
