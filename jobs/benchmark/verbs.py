"""`spikeseg benchmark`: the measurements behind every claim of speed; each prints its table."""

import click

from ..cli import VerbGroup, run

_VERBS: dict[str, str] = {
    "curves": "benchmark.training_curves",
    "data": "benchmark.data",
    "energy": "benchmark.network_energy",
    "export": "benchmark.export",
    "gpu": "benchmark_gpu.command",
    "inference": "benchmark.inference",
    "loop": "benchmark.loop",
    "model": "benchmark.model",
    "neuron": "benchmark.neuron",
    "pages": "benchmark.tracking_pages",
    "search": "benchmark.search",
    "sweep": "benchmark.sweep",
    "tracking": "benchmark.tracking",
}


@click.group("benchmark", cls=VerbGroup, verbs=_VERBS)
def command() -> None:
    """Measure side by side in one run, and print the ratios."""


if __name__ == "__main__":
    run(command)
