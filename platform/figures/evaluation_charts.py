"""Figures of an evaluation as PNG bytes: reliability, and score against energy."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from .charts import render_png


def draw_reliability(calibration: Mapping[str, Any]) -> bytes:
    """Draw accuracy over confidence, and how many pixels each bin has.

    Args:
        calibration: `ece` and `bins` of an evaluation.

    Returns:
        PNG.
    """
    bins = calibration["bins"]
    middles = [50 * (item["low"] + item["high"]) for item in bins]
    width = 100 / len(bins)
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.bar(
        middles,
        [item["accuracy"] or 0 for item in bins],
        width=width * 0.92,
        color="#4878a8",
        label="pixels that are right",
    )
    points = [(i["confidence"], i["accuracy"]) for i in bins if i["pixels"]]
    upper.plot(
        *zip(*points, strict=True), "o", color="#1b1f24", markersize=4, label="mean of a bin"
    )
    upper.plot((0, 100), (0, 100), "--", color="#888", label="confidence = accuracy")
    upper.set(ylabel="accuracy in %", xlim=(0, 100), ylim=(0, 100))
    upper.set_title(f"expected calibration error {calibration['ece']:.2f} %", fontsize=10)
    upper.legend(fontsize=8, loc="upper left")
    total = sum(item["pixels"] for item in bins) or 1
    shares = [100 * item["pixels"] / total for item in bins]
    lower.bar(middles, shares, width=width * 0.92, color="#b0b8c0")
    lower.set(xlabel="confidence in %", ylabel="% of pixels")
    return render_png(figure)


def draw_score_against_energy(points: Sequence[Mapping[str, Any]], score: str) -> bytes:
    """Draw a score over the energy of an image, a line for each T, a point for each D.

    Args:
        points: `timesteps`, `levels`, `energy_mJ`, the score, and `trained` of each point.
        score: Name of the score, in percent.

    Returns:
        PNG.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for timesteps in sorted({point["timesteps"] for point in points}):
        line = sorted(
            (point for point in points if point["timesteps"] == timesteps),
            key=lambda point: point["levels"],
        )
        energy = [point["energy_mJ"] for point in line]
        axes.plot(energy, [point[score] for point in line], marker="o", label=f"T = {timesteps}")
        for point in line:
            axes.annotate(
                f"D = {point['levels']}",
                (point["energy_mJ"], point[score]),
                textcoords="offset points",
                xytext=(5, -11),
                fontsize=8,
            )
    for point in points:
        if point["trained"]:
            place = (point["energy_mJ"], point[score])
            axes.plot(*place, "s", markersize=12, fillstyle="none", color="#1b1f24")
    axes.plot([], [], "s", markersize=9, fillstyle="none", color="#1b1f24", label="as trained")
    axes.set(xlabel="energy of one image in mJ", ylabel=f"{score} in %", ylim=(0, None))
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return render_png(figure)
