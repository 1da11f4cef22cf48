"""`spikeseg evaluate`: score a run on a packed data set, per class, image and form."""

from pathlib import Path
from typing import Any, TypedDict, Unpack

import click

from .cli import run
from .display.class_table import format_class_table
from .display.progress import open_progress
from .options import (
    TypedPath,
    machine_options,
    overrides_argument,
    plain_logging,
    pool_options,
    run_argument,
    runtime_options,
    storage_option,
)


class _Options(TypedDict):
    split: str
    as_json: bool
    no_operations: bool
    window: str | None
    stride: str | None
    scales: str
    flip: bool
    timesteps: str
    levels: str
    energy: bool
    worst: int
    submission: str | None
    output: Path | None
    processes: int
    on_ray: bool
    folded: bool
    runtime: Any
    exported: Path | None
    device: str | None
    threads: int | None
    storage: Path


@click.command("evaluate")
@run_argument
@overrides_argument
@click.option("--split", default="test", show_default=True, help="Split to score.")
@click.option(
    "--no-operations",
    is_flag=True,
    help="Do not count operations; they are where one process shows whole images once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--window", metavar="HxW", help="Slide a window of this size over images.")
@click.option("--stride", metavar="HxW", help="Pixels between windows.  [default: two thirds]")
@click.option(
    "--scales",
    default="1",
    show_default=True,
    help="Factors on the test size, as 0.5,1,1.5; scores are averaged.",
)
@click.option("--flip", is_flag=True, help="Show images mirrored, too.")
@click.option("--timesteps", default="", help="T to score besides, as 1,2,4.")
@click.option("--levels", default="", help="D to score besides, as 1,2,4.")
@click.option(
    "--energy", is_flag=True, help="Measure every image's energy, one more forward pass each."
)
@click.option(
    "--worst", type=click.IntRange(0), default=8, show_default=True, help="Worst images to draw."
)
@click.option(
    "--submission",
    type=click.Choice(["cityscapes", "ade20k", "voc"]),
    help="Write predictions for a benchmark's owners into OUTPUT/submission.",
)
@click.option(
    "--output",
    type=TypedPath(),
    help="Folder for JSON, CSV, pictures and one HTML page.",
)
@click.option("--folded", is_flag=True, help="Score the form with folded weights beside it.")
@runtime_options
@pool_options
@machine_options
@storage_option
def command(word: str, overrides: tuple[str, ...], **options: Unpack[_Options]) -> None:
    """Score the best checkpoint of RUN, or the checkpoint that RUN names, on a split, per class.

    RUN is a run's name or a unique prefix of it, the folder of a run or checkpoint, a run's id in
    MLflow, SWEEP/TRIAL, SWEEP/best, or latest; `spikeseg runs` lists them. The trained form is
    scored; --folded and --runtime score another one beside it.
    """
    from ..platform.config.stored_json import to_json
    from ..platform.scoring.evaluate_run import evaluate_run
    from ..platform.scoring.level_curve import evaluate_levels
    from ..platform.scoring.report_files import write_report_files
    from ..platform.scoring.request import read_numbers, read_request
    from ..platform.train.progress import report_rows

    plain_logging()
    request = read_request(word, overrides, options)
    timesteps = read_numbers("--timesteps", options["timesteps"])
    levels = read_numbers("--levels", options["levels"])
    # JSON stands alone on standard output.
    with open_progress(quiet=options["as_json"]) as progress:
        report, worker = evaluate_run(request, on_rows=report_rows(progress, "scored"))
        if timesteps or levels:
            report["curve"] = evaluate_levels(
                request, timesteps=timesteps, levels=levels, tell=progress
            )
        page = None
        if options["output"] is not None:
            page = write_report_files(report, worker, options["output"], worst=options["worst"])
    if options["as_json"]:
        print(to_json(report))
        return
    _print_report(report)
    if page is not None:
        print(f"page: {page}")


def _print_report(report: dict[str, Any]) -> None:
    from ..platform.scoring.report_files import list_shown_metrics

    print(f"{report['checkpoint']}: {report['split']} split, {report['rows']} rows")
    print(format_class_table(report["classes"]))
    for name, value in list_shown_metrics(report["metrics"]).items():
        print(f"{name:12} {value:.4f}")
    if "energy_mj" in report:
        print(f"{'energy':12} {report['energy_mj']:.6f} mJ an image (rule paper)")
    for form in report["forms"][1:]:
        score = form["metrics"][f"{report['split']}/mIoU"]
        print(
            f"{form['form']}: mIoU {score:.4f}, {form['different_pixels']} labels differ from the "
            f"trained form's ({form['different_percent']:.4f} %)"
        )
    for point in report["curve"]:
        mark = "  (as trained)" if point["trained"] else ""
        print(
            f"T {point['timesteps']}  D {point['levels']}  mIoU {point['mIoU']:7.4f}  "
            f"{point['energy_mJ']:.6f} mJ{mark}"
        )


if __name__ == "__main__":
    run(command)
