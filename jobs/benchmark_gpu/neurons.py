"""Step 3: neurons against the copy ceiling, the published form and others, row by row."""

from ..benchmark.neuron import command as measure_neurons
from .step import ROWS, Step, run_step


def measure(step: Step) -> None:
    """Run `spikeseg benchmark neuron` for the seconds of this step, the rows that matter first."""
    seconds = 0.85 * step.seconds_left()
    arguments = ["--device", step.device, "--seconds", f"{seconds:.0f}"]
    arguments += ["--output", str(step.folder / ROWS)]
    arguments += ["--tiny"] if step.rehearse else ["--compile"]
    measure_neurons.main(arguments, standalone_mode=False)


if __name__ == "__main__":
    run_step("neurons", measure)
