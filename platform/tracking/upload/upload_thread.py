"""The thread between a journal and MLflow: waits, retries, and never disturbs a training."""

import logging
import os
import threading
import time
from pathlib import Path

from ...config.redaction import scrubbed
from ..mlflow_client import TIMEOUT, import_mlflow
from ..tracking_uri import without_user
from .upload_offset import alone, unsent
from .uploader import Replay, RunDeletedError

_log = logging.getLogger(__name__)
# A batch costs MLflow about the same whether it holds one step or twenty.
_POLL_SECONDS = 5.0
_FIRST_RETRY = 1.0
_LONGEST_WAIT = 30.0
_LONGEST_REQUEST = 120


class Sender:
    """A thread that brings a journal to MLflow and outlives any outage.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.
        run: The run's folder, as `spikeseg track sync` takes it.

    Raises:
        ImportError: Where MLflow is not installed.
    """

    def __init__(self, journal: Path, uri: str, experiment: str, run: Path) -> None:
        import_mlflow()
        self._journal = journal
        self._uri = uri
        self._experiment = experiment
        self._run_folder = run
        self._shortest_request = _allowed()
        self._deadline = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="mlflow-sender")

    def start(self) -> None:
        """Begin sending."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Send what is left, for so many seconds at most; the rest stays in the journal."""
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._thread.join(timeout + 1)
        if self._thread.is_alive() or unsent(self._journal):
            _log.warning(
                "%s: not everything reached %s; send the rest with: spikeseg track sync %s",
                self._journal,
                without_user(self._uri),
                self._run_folder,
            )

    def _run(self) -> None:
        wait = _FIRST_RETRY
        told = False
        replay: Replay | None = None
        while True:
            stopping = self._stop.is_set()
            try:
                with alone(self._journal):
                    replay = replay or Replay(
                        self._journal, self._uri, self._experiment, self._run_folder
                    )
                    replay.send()
                wait, told = _FIRST_RETRY, False
                self._allow(_allowed() // 2)
                if stopping:
                    return
                self._stop.wait(_POLL_SECONDS)
                continue
            except (RunDeletedError, ImportError) as error:
                _log.warning("%s; nothing more is sent", error)
                return
            except Exception as error:  # A tracker must never end a training.
                replay = None
                text = scrubbed(str(error))
                if "Read timed out" in text or "operation timed out" in text:
                    # A server that is alive but slow would otherwise never get a batch through.
                    self._allow(min(2 * _allowed(), _LONGEST_REQUEST))
                wait = min(2 * wait, _LONGEST_WAIT)
                if not told:
                    shown = without_user(self._uri)
                    _log.warning("%s: MLflow is out of reach, will retry: %s", shown, text)
                    told = True
            if self._stop.is_set():
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return
                time.sleep(min(_FIRST_RETRY, left))
            else:
                self._stop.wait(wait)

    def _allow(self, seconds: int) -> None:
        """Wait so long for an answer, never less than at the start."""
        os.environ[TIMEOUT] = str(max(seconds, self._shortest_request))


def _allowed() -> int:
    """Seconds that MLflow's client waits for an answer."""
    return max(1, int(float(os.environ.get(TIMEOUT, "5"))))
