"""The thread between journals and MLflow: waits, retries, and never disturbs what it watches."""

import logging
import os
import threading
import time
from pathlib import Path

from ...config.command_lines import command_line
from ...config.redaction import scrubbed_message
from ..journal_lines import RECORDS
from ..mlflow_client import TIMEOUT
from ..mlflow_failure import describe_failure
from ..tracking_uri import without_user
from .journal_faults import JournalError
from .upload_offset import unsent, upload_lock
from .uploader import RunDeletedError, Uploader

_log = logging.getLogger(__name__)
# A batch costs MLflow about the same whether it holds one step or twenty.
_POLL_SECONDS = 5.0
_FIRST_RETRY = 1.0
_LONGEST_WAIT = 30.0
_LONGEST_REQUEST = 120
OUTAGE = 2
"""Where so many journals in a row are not taken, it is MLflow that is out of reach."""


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
        self._journals = JournalList(journal, run)
        self._sent_sizes: dict[Path, int | None] = {}
        self._failing: set[Path] = set()
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
        # Not the thread's list: it may still be at work on that.
        journals = JournalList(self._journal, self._run_folder).read()
        left = [journal for journal in journals if unsent(journal)]
        if not left and not self._thread.is_alive():
            return
        what = f"{len(left)} of {len(journals)} journals are not, or not whole, in"
        if len(journals) == 1:
            what = "not everything reached"
        _log.warning(
            "%s: %s %s; send the rest with: %s",
            self._run_folder,
            what,
            without_user(self._uri),
            command_line("track", "sync", self._run_folder.absolute()),
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
                    _log.warning("%s, will retry: %s", self._what_failed(error), text)
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

    def _what_failed(self, error: Exception) -> str:
        """What is not sent: one journal, or nothing at all."""
        if len(self._failing) == 1 and len(self._journals.read()) > 1:
            return f"{next(iter(self._failing))}: not sent"
        return f"{without_user(self._uri)}: MLflow {describe_failure(self._uri, error)}"

    def _send_all(self) -> None:
        """Send what the journals gained since they were sent last.

        A journal that cannot be sent holds up no other one: those that failed come last, and only
        several in a row that MLflow does not take end the round.

        Raises:
            Exception: What came of the first one that MLflow did not take.
        """
        errors: list[Exception] = []
        in_a_row = 0
        journals = self._journals.read()
        # The sweep's own stays the first: its run is the parent of the others.
        for journal in sorted(journals, key=lambda path: path in self._failing - {self._journal}):
            size = _file_size(journal / RECORDS)
            if journal in self._deleted or size in (None, self._sent_sizes.get(journal)):
                continue
            try:
                self._send(journal)
            except RunDeletedError as error:
                _log.warning("%s; nothing more of it is sent", error)
                self._deleted.add(journal)
            except JournalError as error:
                # Until it changes it need not be tried again.
                _log.warning("not sent to MLflow: %s", error)
            except ImportError:
                raise
            except Exception as error:
                errors.append(error)
                in_a_row += 1
                self._failing.add(journal)
                if in_a_row == OUTAGE:
                    break
                continue
            in_a_row = 0
            self._failing.discard(journal)
            self._sent_sizes[journal] = size
        if errors:
            raise errors[0]

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


class JournalList:
    """The journals of a run's or a sweep's folder, which grows: known ones are not looked up.

    Args:
        journal: The run's own.
        run: Folder of the run or the sweep.
    """

    def __init__(self, journal: Path, run: Path) -> None:
        self._own = journal
        self._trials = run / "trials"
        self._known: dict[int, Path] = {}

    def read(self) -> list[Path]:
        """The run's own journal and those of its trials by number, where they have records."""
        for folder in self._trials.iterdir() if self._trials.is_dir() else ():
            ours = folder.name.isascii() and folder.name.isdecimal()
            number = int(folder.name) if ours else None
            if number is None or number in self._known:
                continue
            if (folder / "journal" / RECORDS).is_file():
                self._known[number] = folder / "journal"
        own = [self._own] if (self._own / RECORDS).is_file() else []
        return own + [self._known[number] for number in sorted(self._known)]


def _file_size(path: Path) -> int | None:
    """Bytes of a file; None where it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _request_timeout() -> int:
    """Seconds that MLflow's client waits for an answer."""
    return max(1, int(float(os.environ.get(TIMEOUT, "5"))))
