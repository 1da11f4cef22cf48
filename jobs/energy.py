"""`spikeseg energy`: operations and theoretical energy of one image."""

import json
from pathlib import Path
from typing import Any

import click

from .cli import run
from .display.sentences import fill_lines
from .options import (
    TypedPath,
    machine_options,
    overrides_argument,
    plain_logging,
    run_argument,
    storage_option,
)

_LARGEST = 6


@click.command("energy")
@run_argument
@overrides_argument
@click.option("--split", default="val", show_default=True, help="Split whose images are run.")
@click.option("--images", type=click.IntRange(min=1), help="Rows from its start; all by default.")
@click.option(
    "--rule",
    default="paper",
    show_default=True,
    help="Name of a rule, all of them, or a YAML file of picojoules.",
)
@click.option("--forms", is_flag=True, help="Also fold the network and unroll its spikes.")
@click.option(
    "--standard",
    type=click.Choice(["neurobench", "spikingjelly"]),
    help="Also say the figures of this standard, under its names.",
)
@click.option("--pictures", type=TypedPath(file_okay=False), help="Folder for pictures.")
@click.option("--layers", is_flag=True, help="Show every layer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@machine_options
@storage_option
def command(
    word: str, overrides: tuple[str, ...], as_json: bool, layers: bool, storage: Path, **asked: Any
) -> None:
    """Count the operations of RUN's images, spike by spike, and what they cost.

    Spikes are charged as binary slots, what reads real values as multiplications; docs/energy.md
    says which operations a rule charges and where its numbers come from.
    """
    from ..platform.config.stored_json import to_json
    from ..platform.runs.energy_report import EnergyRequest, measure_checkpoint_energy
    from ..platform.runs.find_run import find_run
    from ..platform.runs.predict_images import Machine

    plain_logging()
    machine = Machine(asked.pop("device"), asked.pop("threads"))
    weights = find_run(word, storage).weights
    report = measure_checkpoint_energy(weights, overrides, EnergyRequest(machine=machine, **asked))
    if as_json:
        print(to_json(report))
        return
    for line in _describe(report, layers, asked["rule"] == "all"):
        print(fill_lines(line))


def _describe(report: dict[str, Any], layers: bool, all_rules: bool) -> list[str]:
    total, images = report["total_mj"], report["images"]
    counted = report["synaptic_operations"]
    rows = sorted(report["rows"], key=lambda row: -row["mj"])
    shown = report["rows"] if layers else rows[:_LARGEST]
    lines = [
        f"{images['mean']:.6f} mJ an image ({images['number']} of {report['split']}: standard "
        f"deviation {images['std']:.6f}, largest {images['max']:.6f})",
        f"{report['ann_mj']:.6f} mJ for a network that multiplies the same MACs",
        f"{counted['events']:,.0f} synaptic operations by the spikes themselves; MACs x rate says "
        f"{counted['macs_times_rate']:,.0f} ({counted['difference_percent']:+.1f} %)",
        "",
        f"{'part':32} {'mJ':>10} {'share':>7}",
        *(
            f"{name:32} {mj:10.6f} {100 * mj / total if total else 0:6.1f}%"
            for name, mj in sorted(report["stages"].items(), key=lambda item: -item[1])
        ),
        "",
        f"{'layer' if layers else f'{_LARGEST} largest layers':60} {'kind':14} {'MACs':>13} "
        f"{'spikes':>7} {'operations':>13} {'mJ':>10}",
    ]
    for row in shown:
        spikes = f"{row['rate']:7.3f}" if row["spiking_input"] else "   real"
        lines.append(
            f"{row['name']:60} {row['kind']:14} {row['macs']:13,.0f} {spikes} "
            f"{row['operations']:13,.0f} {row['mj']:10.6f}"
        )
    if all_rules:
        lines += ["", f"{'rule':14} {'mJ':>12}  break-even share of slots (D = {report['levels']})"]
        lines += [
            f"{name:14} {mj:12.6f}  {100 * report['break_even'][name]:6.1f}%"
            for name, mj in report["rules"].items()
        ]
        lines.append(
            f"{100 * report['slots_that_fire']:.1f}% of slots fire; a quantised network of equal "
            "levels costs less where that is above the break-even share"
        )
    for name, form in report.get("forms", {}).items():
        lines.append(
            f"{name:22} {form['mj']:10.6f} mJ, {form['products']:,.0f} products "
            f"({', '.join(form['multiplies'])}), {form['accumulates']:,.0f} accumulates, "
            f"{form['norms_and_factors']:,.0f} by norms and constants"
        )
    for standard in ("neurobench", "spikingjelly"):
        if standard in report:
            lines += [f"{standard}: {json.dumps(report[standard])}"]
    lines += report.get("pictures", [])
    return [*lines, f"total {total:.6f} mJ per image: {report['rule']}"]


if __name__ == "__main__":
    run(command)
