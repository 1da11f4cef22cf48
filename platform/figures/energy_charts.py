"""Pictures of energy: per layer, per image against its score, and where in the image it goes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .charts import render_png

_COLOURS = {False: "tab:blue", True: "tab:orange"}


def draw_layer_energy(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw every layer's rate, operations and share of the energy, side by side.

    Args:
        rows: Layers with `name`, `kind`, `rate`, `operations`, `mj` and `spiking_input`; those that
            cost nothing are left out.

    Returns:
        PNG; what multiplies is orange.
    """
    shown = [row for row in rows if row["mj"] > 0]
    total = sum(row["mj"] for row in shown) or 1.0
    figure = Figure(figsize=(11, 1.4 + 0.15 * len(shown)), layout="constrained")
    panels = (
        ("mean spike count at the input", [row["rate"] for row in shown]),
        ("operations", [row["operations"] for row in shown]),
        ("share of the energy, %", [100 * row["mj"] / total for row in shown]),
    )
    colours = [_COLOURS[not row["spiking_input"]] for row in shown]
    for index, (title, values) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        axes.barh(range(len(shown)), values, color=colours)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(title, fontsize=8)
        axes.tick_params(labelsize=6)
        axes.grid(axis="x", alpha=0.3)
        names = [row["name"] for row in shown] if index == 0 else [""] * len(shown)
        axes.set_yticks(range(len(shown)), names, fontsize=5)
    return render_png(figure)


def draw_image_energy(energies: Sequence[float], scores: Sequence[float]) -> bytes:
    """Draw each image's energy against its mean IoU.

    Args:
        energies: Millijoule of each image.
        scores: Its mean IoU in percent.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(energies, scores, s=16)
    axes.set_xlabel("mJ of the image")
    axes.set_ylabel("mean IoU over the image's classes, %")
    axes.grid(alpha=0.3)
    return render_png(figure)


def draw_energy_maps(images: Sequence[np.ndarray], maps: Sequence[np.ndarray]) -> bytes:
    """Draw images over maps of the accumulates that their spikes cause.

    Args:
        images: (H, W, 3) uint8 each.
        maps: (h, w) accumulates each, of convolutions at the place of the spike.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(3 * len(images), 4.5), layout="constrained")
    most = max((float(item.max()) for item in maps), default=1.0)
    drawn = None
    for index, (image, place) in enumerate(zip(images, maps, strict=True)):
        above = figure.add_subplot(2, len(images), index + 1)
        above.imshow(image)
        above.set_axis_off()
        below = figure.add_subplot(2, len(images), len(images) + index + 1)
        drawn = below.imshow(place, cmap="inferno", vmin=0, vmax=most)
        below.set_axis_off()
    if drawn is not None:
        figure.colorbar(drawn, ax=figure.axes[1::2], label="accumulates a pixel", shrink=0.6)
    return render_png(figure)
