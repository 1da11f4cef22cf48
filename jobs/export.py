"""`spikeseg export`: one file of a run's network that runs without this package."""

from pathlib import Path
from typing import Any, Literal

import click

from .cli import run
from .display.export_report import format_export
from .options import TypedPath, overrides_argument, plain_logging, run_argument, storage_option


@click.command("export")
@run_argument
@overrides_argument
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "pt2"]),
    default="onnx",
    show_default=True,
    help="ONNX, or a program for torch.export.load.",
)
@click.option(
    "--weights",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="int8: where spike counts are read; measured on the whole validation split.",
)
@click.option(
    "--runtime",
    type=click.Choice(["onnx", "openvino"]),
    default="onnx",
    show_default=True,
    help="Who computes the comparison, and is to be fast with int8 weights.",
)
@click.option("--output", type=TypedPath(), help="File.  [default: RUN.onnx]")
@click.option(
    "--images",
    type=click.IntRange(1),
    help="Images to compare on.  [default: 8; of int8 all]",
)
@click.option("--split", default="val", show_default=True, help="Split of these images.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the checkpoint is loaded; files are made and compared on the CPU.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@storage_option
def command(word: str, overrides: tuple[str, ...], storage: Path, **options: Any) -> None:
    """Write the folded network of RUN to one file, compared with the trained one first.

    The file holds classes, palette, preprocessing and the comparison (docs/export.md).
    """
    from ..platform.export.export_network import ExportRequest
    from ..platform.runs.export_run import export_run
    from ..platform.runs.find_run import find_run

    plain_logging()
    found = find_run(word, storage)
    kind: Literal["onnx", "pt2"] = options["format_"]
    output = options["output"] or Path(f"{found.word.replace('/', '_')}.{kind}")
    request = ExportRequest(
        output,
        kind,
        options["weights"],
        options["runtime"],
        options["threads"],
        options["images"],
        options["split"],
    )
    settings = (f"trainer.device={options['device']}", f"trainer.threads={options['threads']}")
    metadata = export_run(found.weights, request, (*settings, *overrides), tell=print)
    print(format_export(output, metadata))


if __name__ == "__main__":
    run(command)
