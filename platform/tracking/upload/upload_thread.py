"""The thread between journals and MLflow: waits, retries, and never disturbs what it watches."""

import logging
import os
import threading
import time
from pathlib import Path

from ...config.redaction import scrubbed_message
from ..journal_lines import RECORDS
from ..mlflow_client import TIMEOUT
from ..tracking_uri import without_user
from .upload_offset import unsent, upload_lock
from .uploader import RunDeletedError, Uploader

_log = logging.getLogger(__name__)
# A batch costs MLflow about the same whether it holds one step or twenty.
_POLL_SECONDS = 5.0
_FIRST_RETRY = 1.0
_LONGEST_WAIT = 30.0
_LONGEST_REQUEST = 120


class Sender:
    """A thread that brings a run's journal to MLflow and outlives any outage.

    Of a sweep's folder it sends the journals of the trials too, as they come.

    Args:
        journal: The journal's folder.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.
        run: Folder of the run or the sweep, as `spikeseg track sync` takes it.
        poll: Seconds between two looks at the journals.
        delay: Seconds before the first look; `begin` and `stop` cut them short.
    """

    def __init__(
        self,
        journal: Path,
        uri: str,
        experiment: str,
        run: Path,
        *,
        poll: float = _POLL_SECONDS,
        delay: float = 0.0,
    ) -> None:
        self._journal = journal
        self._uri = uri
        self._experiment = experiment
        self._run_folder = run
        self._poll = poll
        self._delay = delay
        self._shortest_request = _request_timeout()
        self._deadline = 0.0
        self._uploaders: dict[Path, Uploader] = {}
        self._sent_sizes: dict[Path, int] = {}
        self._deleted: set[Path] = set()
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="mlflow-sender")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self) -> None:
        """Send from now on, whatever is left of the delay."""
        self._due.set()

    def stop(self, timeout: float) -> None:
        """Send what is left, for so many seconds at most; the rest stays in the journals."""
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._due.set()
        self._thread.join(timeout + 1)
        if self._thread.is_alive() or any(map(unsent, self._journals())):
            _log.warning(
                "%s: not everything reached %s; send the rest with: spikeseg track sync %s",
                self._journal,
                without_user(self._uri),
                self._run_folder,
            )

    def _run(self) -> None:
        self._due.wait(self._delay)
        wait = _FIRST_RETRY
        while True:
            stopping = self._stop.is_set()
            try:
                self._send_all()
            except ImportError as error:
                _log.warning("not sent to MLflow, which cannot be imported here: %s", error)
                return
            except Exception as error:  # A tracker must never end a training.
                text = scrubbed_message(error)
                if "Read timed out" in text or "operation timed out" in text:
                    # A server that is alive but slow would otherwise never get a batch through.
                    self._set_request_timeout(min(2 * _request_timeout(), _LONGEST_REQUEST))
                if wait == _FIRST_RETRY:
                    shown = without_user(self._uri)
                    _log.warning("%s: MLflow is out of reach, will retry: %s", shown, text)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                wait = _FIRST_RETRY
                self._set_request_timeout(_request_timeout() // 2)
                if stopping:
                    return
                self._stop.wait(self._poll)
                continue
            if self._stop.is_set():
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return
                time.sleep(min(_FIRST_RETRY, left))
            else:
                self._stop.wait(wait)

    def _journals(self) -> list[Path]:
        """The run's journal, then those of its trials."""
        journals = [self._journal, *trial_journals(self._run_folder)]
        return [journal for journal in journals if (journal / RECORDS).is_file()]

    def _send_all(self) -> None:
        """Send what the journals gained since they were sent last."""
        for journal in self._journals():
            size = (journal / RECORDS).stat().st_size
            if journal in self._deleted or size == self._sent_sizes.get(journal):
                continue
            try:
                self._send(journal)
                self._sent_sizes[journal] = size
            except RunDeletedError as error:
                _log.warning("%s; nothing more of it is sent", error)
                self._deleted.add(journal)

    def _send(self, journal: Path) -> None:
        run = self._run_folder if journal == self._journal else journal.parent
        # After an error it is made anew.
        uploader = self._uploaders.pop(journal, None)
        with upload_lock(journal):
            uploader = uploader or Uploader(journal, self._uri, self._experiment, run)
            uploader.send()
        if not uploader.ended:
            self._uploaders[journal] = uploader

    def _set_request_timeout(self, seconds: int) -> None:
        """Wait so long for an answer, never less than at the start."""
        os.environ[TIMEOUT] = str(max(seconds, self._shortest_request))


def trial_journals(folder: Path) -> list[Path]:
    """Journals of the trials of a sweep's folder, by number; none in the folder of a run."""
    trials = (path for path in (folder / "trials").glob("*/journal") if _is_number(path))
    return sorted(trials, key=lambda path: int(path.parent.name))


def _is_number(journal: Path) -> bool:
    name = journal.parent.name
    return name.isascii() and name.isdigit()


def _request_timeout() -> int:
    """Seconds that MLflow's client waits for an answer."""
    return max(1, int(float(os.environ.get(TIMEOUT, "5"))))
