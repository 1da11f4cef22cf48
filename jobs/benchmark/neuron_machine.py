"""What `spikeseg benchmark neuron` ran on: versions, card, driver, clocks, temperature."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

from ...model.neuron.backends.dispatch import choose_backend

_PACKAGES = ("cupy-cuda", "nvidia-cuda-nvrtc", "triton", "spikingjelly", "snntorch")
# Column of a row -> what nvidia-smi calls it.
_STATE = {
    "driver": "driver_version",
    "clock_sm": "clocks.sm",
    "clock_memory": "clocks.mem",
    "temperature_c": "temperature.gpu",
}


def describe_machine(device: str, threads: int) -> dict[str, Any]:
    """Describe the machine as the first row of a measurement.

    Args:
        device: `cpu` or `cuda`.
        threads: CPU threads of torch.
    """
    row: dict[str, Any] = {
        "case": "machine",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "backend": choose_backend("auto", device),
    }
    if device == "cpu":
        return row | {"processor": platform.processor() or platform.machine(), "threads": threads}
    row |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda} | read_card_state()
    if row["backend"] == "cuda":
        for package in metadata.distributions():
            if package.name.startswith(_PACKAGES):
                row[package.name] = package.version
    return row


def read_card_state() -> dict[str, str]:
    """Read driver, clocks and temperature of torch's GPU from nvidia-smi.

    Without nvidia-smi, or where it does not know the card, the driver is `unknown`.
    """
    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    command = ["nvidia-smi", f"--id=GPU-{card.uuid}", f"--query-gpu={','.join(_STATE.values())}"]
    try:
        done = subprocess.run(
            [*command, "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {"driver": "unknown"}
    return dict(zip(_STATE, done.stdout.strip().split(", "), strict=True))
