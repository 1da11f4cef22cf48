"""System metrics of the machine that rank 0 runs on, into its journal, from a thread beside it."""

import functools
import logging
import threading
import time

from .journal import Journal

_log = logging.getLogger(__name__)


class SystemMonitor:
    """Samples processor and memory every few seconds under the names MLflow's page looks for.

    The step is the number of intervals since the run's first record, so that a restart goes on.

    Args:
        journal: The run's journal.
        interval: Seconds between two samples.
    """

    def __init__(self, journal: Journal, interval: float) -> None:
        self._journal = journal
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="system-metrics")

    def start(self) -> None:
        """Begin sampling."""
        self._thread.start()

    def stop(self) -> None:
        """End it; the journal may be closed then."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            ended = self._stop.wait(self._interval)
            elapsed = time.time() - self._journal.started / 1000
            values = sample()
            if values:
                self._journal.metrics(int(elapsed / self._interval), values)
            if ended:
                return


def sample() -> dict[str, float]:
    """One reading; empty where psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return {}
    import torch

    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": psutil.virtual_memory().percent,
        "system/process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
    }
    if torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info()
        values["system/gpu_memory_usage_megabytes"] = (total - free) / 1e6
        values |= _sample_sensors()
    return values


def _sample_sensors() -> dict[str, float]:
    """Use and power of this process's GPU, which the driver's library (NVML) measures."""
    import torch

    try:
        return {
            "system/gpu_utilization_percentage": float(torch.cuda.utilization()),
            "system/gpu_power_usage_watts": torch.cuda.power_draw() / 1000,
        }
    except ImportError:
        _warn_once("nvidia-ml-py is not installed (pip install nvidia-ml-py)")
    except Exception as error:
        # NVML's own errors have no class that is there without it; a part of a GPU has no sensors.
        _warn_once(str(error) or type(error).__name__)
    return {}


@functools.cache
def _warn_once(reason: str) -> None:
    _log.warning("power and use of the GPU are not recorded: %s", reason)
