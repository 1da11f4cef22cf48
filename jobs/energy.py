"""`spikeseg energy`: the theoretical energy of one image, layer by layer."""

from pathlib import Path
from typing import Any

import click

from .cli import run
from .options import (
    machine_options,
    overrides_argument,
    plain_logging,
    run_argument,
    storage_option,
)


@click.command("energy")
@run_argument
@overrides_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@machine_options
@storage_option
def command(
    word: str,
    overrides: tuple[str, ...],
    as_json: bool,
    storage: Path,
    **machine: Any,
) -> None:
    """Estimate the energy of RUN on validation images, with MACs and spike counts per layer."""
    from ..platform.config.stored_json import to_json
    from ..platform.runs.find_run import find_run
    from ..platform.runs.predict_images import Machine, measure_checkpoint_energy

    plain_logging()
    report = measure_checkpoint_energy(
        find_run(word, storage).weights, overrides, Machine(**machine)
    )
    if as_json:
        print(to_json(report))
        return
    print(f"{'layer':60} {'MACs':>13} {'spikes':>7} {'mJ':>10}")
    for row in report["rows"]:
        spikes = f"{row['rate']:7.3f}" if row["spiking_input"] else "   real"
        print(f"{row['name']:60} {row['macs']:13,d} {spikes} {row['mj']:10.6f}")
    print(f"total {report['total_mj']:.6f} mJ per image: {report['rule']}")


if __name__ == "__main__":
    run(command)
