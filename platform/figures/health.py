"""Firing rate and gradient norm of every layer at one step, as a picture."""

from matplotlib.figure import Figure

from ...model.accounting.health import StepHealth
from .charts import render_png


def draw_health(health: StepHealth, title: str) -> bytes:
    """Draw firing rates above gradient norms, layers from input to output.

    Args:
        health: What `step_health` measured.
        title: Stands above the picture.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(14, 7), layout="constrained")
    above, below = figure.subplots(2, 1)
    rates = [row.rate for row in health.firing]
    colours = ["tab:red" if row.rate == 0 else "tab:blue" for row in health.firing]
    above.bar(range(len(rates)), rates, color=colours, width=1.0)
    levels = max((row.levels for row in health.firing), default=1)
    above.axhline(levels, color="grey", linewidth=0.8, linestyle="--")
    above.set_ylabel("mean spike count per neuron and step")
    above.set_xlabel(f"{len(rates)} neuron layers, {len(health.neurons.dead)} dead (red at 0)")
    dead = [index for index, row in enumerate(health.firing) if row.rate == 0]
    above.plot(dead, [0.0] * len(dead), "x", color="tab:red")
    norms = [row.norm for row in health.gradients]
    below.bar(range(len(norms)), norms, color="tab:green", width=1.0)
    below.set_yscale("log")
    below.set_ylabel("gradient norm")
    below.set_xlabel(f"{len(norms)} layers with parameters, norm {health.gradient_norm:.3g} in all")
    figure.suptitle(title)
    return render_png(figure)
