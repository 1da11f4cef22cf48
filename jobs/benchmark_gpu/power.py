"""Power of the GPU while a block runs, from nvidia-smi (NVML's figure)."""

import subprocess
import threading
from typing import Self

_EVERY = 0.25


class PowerMeter:
    """Samples the card's power in a thread while the block runs.

    Attributes:
        watts: The samples; none where there is no GPU or nvidia-smi does not tell.
    """

    def __init__(self, device: str) -> None:
        self.watts: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True, name="power")
        self._device = device

    def __enter__(self) -> Self:
        if self._device == "cuda":
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._device == "cuda":
            self._thread.join()

    @property
    def mean_watts(self) -> float | None:
        """Mean power; None without a sample."""
        return sum(self.watts) / len(self.watts) if self.watts else None

    def _sample(self) -> None:
        import torch

        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        command = ["nvidia-smi", f"--id=GPU-{card.uuid}", "--query-gpu=power.draw"]
        command += ["--format=csv,noheader,nounits"]
        while not self._stop.wait(_EVERY):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=5)
                self.watts.append(float(done.stdout.strip()))
            except (OSError, ValueError, subprocess.TimeoutExpired):
                return
