"""`spikeseg convert`: published checkpoints to ours and back, with a report of every key."""

from pathlib import Path
from typing import Literal

import click

from .cli import run
from .options import TypedPath, plain_logging, storage_option


@click.command("convert")
@click.argument("source")
@click.option(
    "--output",
    required=True,
    type=TypedPath(),
    help="Folder to write, or .pth file where SOURCE is ours.",
)
@click.option(
    "--heads", default=8, show_default=True, help="Attention heads, which no weight's shape shows."
)
@click.option(
    "--neuron",
    type=click.Choice(["lif", "integer"]),
    help="Neuron of an SDT-V2 classifier, which no weight shows.  [default: lif, as published]",
)
@storage_option
def command(
    source: str,
    output: Path,
    heads: int,
    neuron: Literal["lif", "integer"] | None,
    storage: Path,
) -> None:
    """Convert SOURCE, a published checkpoint or a run, into the other's format.

    A published .pth (or .safetensors) of a segmentor or an ImageNet classifier becomes a folder
    of ours; such a folder, or RUN as `spikeseg evaluate` takes it, becomes a published .pth.
    No code in a file is run; classes that it pickles are replaced and reported.
    """
    from ..model.published import weights

    plain_logging()
    path = Path(source)
    if path.is_file() or path.suffix in (".pth", ".safetensors"):
        print(weights.convert_published(path, output, num_heads=heads, neuron=neuron))
        print(f"written: {output}")
        return
    if output.suffix != ".pth":
        raise ValueError(f"{output}: a published checkpoint's name ends in .pth")
    if output.exists():
        raise ValueError(f"{output}: exists already")
    if path.is_dir() and weights.is_converted(path):
        model, recognized = weights.read_converted(path)
        bare = recognized.is_classifier
    else:
        from ..platform.runs.find_run import find_run
        from ..platform.runs.predict_images import load_model

        model, bare = load_model(find_run(source, storage).weights).model, False
        unsaid = weights.require_published(model)
        if unsaid:
            print(f"published keys do not tell, and a reader takes for published: {unsaid}")
    weights.write_published(model, output, bare=bare)
    print(f"{len(weights.to_published(model, bare=bare))} keys written: {output}")


if __name__ == "__main__":
    run(command)
