"""The thread between a journal and MLflow: waits, retries, and never disturbs a training."""

import logging
import os
import threading
import time
from pathlib import Path

from .address import without_user
from .sent_offset import alone, unsent
from .tracking import TIMEOUT, Replay, RunDeletedError, connect

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
        connect(uri)
        self._journal = journal
        self._uri = uri
        self._experiment = experiment
        self._run_folder = run
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
                if stopping:
                    return
                self._stop.wait(_POLL_SECONDS)
                continue
            except RunDeletedError as error:
                _log.warning("%s; nothing more is sent", error)
                return
            except Exception as error:  # A tracker must never end a training.
                replay = None
                _allow_slower_answers()
                wait = min(2 * wait, _LONGEST_WAIT)
                if not told:
                    shown = without_user(self._uri)
                    _log.warning("%s: MLflow is out of reach, will retry: %s", shown, error)
                    told = True
            if self._stop.is_set():
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return
                time.sleep(min(_FIRST_RETRY, left))
            else:
                self._stop.wait(wait)


def _allow_slower_answers() -> None:
    """A server that is alive but slow would otherwise never get a batch through."""
    seconds = max(1, int(float(os.environ.get(TIMEOUT, "5"))))
    os.environ[TIMEOUT] = str(min(2 * seconds, max(seconds, _LONGEST_REQUEST)))
