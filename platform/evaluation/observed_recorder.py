"""A run's journal whose training metrics are shown live by Ray, too."""

from collections.abc import Mapping

from ..cluster.live_metrics import set_gauge
from ..tracking.journal import Journal
from ..tracking.upload.upload_offset import unsent

_GAUGES = {"train/loss": "spikeseg_loss", "perf/images_per_s": "spikeseg_images_per_second"}


class ObservedRecorder:
    """Records in a journal, and sets Ray's gauges of the run; this process is connected to Ray.

    Args:
        journal: The run's.
        run: Its name.
        images: Images of one step.
    """

    def __init__(self, journal: Journal, run: str, *, images: int) -> None:
        self._journal = journal
        self._run = run
        self._images = images

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one step; those of training steps become gauges."""
        self._journal.metrics(step, values)
        for metric, gauge in _GAUGES.items():
            if metric in values:
                set_gauge(gauge, values[metric], run=self._run)
        rate = values.get("perf/images_per_s", 0.0)
        if rate > 0:
            set_gauge("spikeseg_step_seconds", self._images / rate, run=self._run)
            set_gauge("spikeseg_step", step, run=self._run)
            set_gauge("spikeseg_unsent_bytes", unsent(self._journal.folder), run=self._run)

    def image(self, name: str, step: int, png: bytes) -> None:
        """Record a picture of one step."""
        self._journal.image(name, step, png)

    def picture(self, path: str, png: bytes) -> None:
        """Record a picture of no step."""
        self._journal.picture(path, png)

    def text(self, path: str, content: str) -> None:
        """Record a small file."""
        self._journal.text(path, content)

    def sync(self) -> None:
        """Make all of it survive a power loss."""
        self._journal.sync()
