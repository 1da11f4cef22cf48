"""Copies of a run's checkpoints and journal on any file system of pyarrow: S3, GCS, HDFS, disk.

Training reads and writes its run's folder; the mirror gets a copy of every checkpoint after it is
whole, manifest last, so that what lies there without a manifest is no checkpoint. The journal goes
before it, files first, so that a run that comes back from here is the same run for the tracker.
Object stores have no rename and no append, and need none for this.
"""

import logging
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from ...datasets.packed.files import WRITING, delete_folder, write_file
from ..tracking.journal import FILES, confined
from ..tracking.journal_lines import RECORDS
from .checkpoint import Checkpoint, read_checkpoint
from .run_folder import FencedError, NoGoodCheckpointError, RunFolder

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
# What tells that the run is there comes last.
_RUN_FILES = ("origins.json", "config.yaml")
_JOURNAL = "journal"
_COPIES = "records"
# A store that has not answered so long after a request will not; data may take longer.
_ANSWER_SECONDS = 60.0
_BYTES_PER_SECOND = 1e6

T = TypeVar("T")


def mirror_name(folder: Path) -> str:
    """Where a mirror keeps a run: `NAME`, or `SWEEP/trials/NUMBER` of a trial.

    Trials of all sweeps have the same few numbers: by number alone one sweep's trial would go on
    from another's copies.
    """
    return "/".join(folder.parts[-3:] if folder.parent.name == "trials" else folder.parts[-1:])


def ask(call: Callable[[], T], num_bytes: int = 0) -> T:
    """Ask a file system for something, in a thread that is given up where no answer comes.

    Args:
        call: Asks.
        num_bytes: Size of what is sent or fetched, which gets a second more for each megabyte.

    Raises:
        TimeoutError: Where there is no answer in time (an `OSError`).
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    seconds = _ANSWER_SECONDS + num_bytes / _BYTES_PER_SECOND
    thread = threading.Thread(target=work, daemon=True, name="mirror-request")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return answers[0]


class Mirror:
    """The copies of one run; every request to their file system has a time limit.

    Args:
        uri: Address below which runs are kept, such as `s3://bucket/runs`.
        name: The run's name there, as `mirror_name` gives it.

    Attributes:
        address: Address below which runs are kept, without what may be secret in it.

    Raises:
        ValueError: Where pyarrow does not know the address.
        OSError: Where nothing can be written there, now.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._token = uuid.uuid4().hex
        self._sent: dict[str, tuple[int, int]] | None = None
        try:
            self._fs, base = ask(lambda: open_file_system(uri))
            self.address = base
            self._base = f"{base.rstrip('/')}/{name}"
            self._create_dir(self._base)
            self._write("probe", b"")
            self._delete_file("probe")
        except pa.ArrowException as error:
            raise ValueError(f"mirror {uri}: {error}") from error
        except OSError as error:
            raise OSError(f"mirror {uri}: {error}") from error

    def claim(self, run: RunFolder) -> None:
        """Become the copies' only writer; copy the files that another machine resumes with."""
        self._write("owner", self._token.encode())
        for name in _RUN_FILES:
            if (run.path / name).is_file():
                self._write(name, (run.path / name).read_bytes())

    def put(self, run: RunFolder, step: int) -> None:
        """Copy the journal and a checkpoint, and delete those that the run's folder has no more.

        Args:
            run: The run's folder, which has the checkpoint.
            step: Its step.

        Raises:
            FencedError: Where another process claimed the mirror.
            OSError: Where the file system refuses; what lies there stays good.
        """
        folder = run.path / "checkpoints" / f"step-{step:08d}"
        self._check_owner()
        self._put_journal(run.path / _JOURNAL, step)
        # A manifest from before would vouch for files that are replaced one by one.
        self._delete_manifest(step)
        files = sorted(folder.iterdir(), key=lambda path: path.name == _MANIFEST)
        for path in files:
            if path.name == _MANIFEST:
                self._check_owner()
            self._write(f"checkpoints/{folder.name}/{path.name}", path.read_bytes())
        in_folder = {path.name for path in (run.path / "checkpoints").glob("step-*")}
        for old in self.steps():
            if f"step-{old:08d}" not in in_folder:
                self._delete_manifest(old)
                folder_there = f"{self._base}/checkpoints/step-{old:08d}"
                ask(lambda path=folder_there: self._fs.delete_dir(path))

    def _put_journal(self, journal: Path, step: int) -> None:
        """Copy the new part of a journal: files first, since records name them."""
        if not (journal / RECORDS).is_file():
            return
        records = (journal / RECORDS).read_bytes()
        if self._sent is None:
            # Pictures never change, so what another attempt copied need not go again.
            there = self._sizes(f"{_JOURNAL}/{FILES}/pictures")
            self._sent = {name: (size, 0) for name, size in there.items()}
        for path in sorted((journal / FILES).rglob("*")):
            if path.is_dir() or path.name.endswith(WRITING):
                continue
            name, state = f"{_JOURNAL}/{path.relative_to(journal)}", path.stat()
            before = self._sent.get(name)
            if before not in ((state.st_size, 0), (state.st_size, state.st_mtime_ns)):
                self._write(name, path.read_bytes())
                self._sent[name] = (state.st_size, state.st_mtime_ns)
        self._check_owner()
        # A name for each: a copy that is torn leaves the one before, which is deleted after it.
        older = self._sizes(f"{_JOURNAL}/{_COPIES}")
        newest = f"{_JOURNAL}/{_COPIES}/{step:08d}-{len(records):012d}.jsonl"
        self._write(newest, records)
        for name in older.keys() - {newest}:
            self._delete_file(name)

    def _sizes(self, folder: str) -> dict[str, int]:
        """Files below a folder of the copies: name -> bytes."""
        selector = fs.FileSelector(f"{self._base}/{folder}", recursive=True, allow_not_found=True)
        return {
            info.path.removeprefix(f"{self._base}/"): info.size
            for info in ask(lambda: self._fs.get_file_info(selector))
            if info.type == fs.FileType.File
        }

    def steps(self) -> list[int]:
        """Steps of the checkpoints that have a manifest, newest first."""
        selector = fs.FileSelector(
            f"{self._base}/checkpoints", recursive=True, allow_not_found=True
        )
        paths = [Path(info.path) for info in ask(lambda: self._fs.get_file_info(selector))]
        names = {path.parent.name for path in paths if path.name == _MANIFEST}
        return sorted((int(name.partition("-")[2]) for name in names), reverse=True)

    def fetch(self, run: RunFolder, *, after: int = -1) -> Checkpoint | None:
        """Bring the newest copy that is good into the run's folder.

        Args:
            run: The run's folder.
            after: Only copies of later steps.

        Returns:
            None where there is none.
        """
        for step in (step for step in self.steps() if step > after):
            name = f"step-{step:08d}"
            target = run.path / "checkpoints" / name
            writing = run.path / "checkpoints" / f".writing-{name}" / name
            delete_folder(writing.parent)
            writing.mkdir(parents=True)
            selector = fs.FileSelector(f"{self._base}/checkpoints/{name}")
            for info in ask(lambda selected=selector: self._fs.get_file_info(selected)):
                (writing / info.base_name).write_bytes(self._read(info.path))
            try:
                read_checkpoint(writing)
            except ValueError as error:
                _log.warning("copy left out: %s", error)
                delete_folder(writing.parent)
                continue
            writing.rename(target)
            writing.parent.rmdir()
            return read_checkpoint(target)
        return None

    def fetch_run(self, folder: Path) -> None:
        """Bring journal, origins and configuration into a new run's folder.

        Raises:
            ValueError: Where the mirror has no such run.
        """
        for name in _RUN_FILES:
            if not self._is_file(name):
                raise ValueError(f"{self._base}: no run is kept there ({name} is missing)")
        self.fetch_journal(folder)
        for name in _RUN_FILES:
            self._fetch_file(name, folder, name)

    def fetch_journal(self, folder: Path) -> None:
        """Bring the journal into a run's folder where it holds more than the one there.

        Args:
            folder: The run's folder.
        """
        # A journal only grows: the longest copy is the newest that is whole.
        copies = self._sizes(f"{_JOURNAL}/{_COPIES}")
        newest = max(copies, key=lambda name: copies[name], default=None)
        there = folder / _JOURNAL / RECORDS
        if newest is None or (there.is_file() and there.stat().st_size >= copies[newest]):
            return
        for name in self._sizes(f"{_JOURNAL}/{FILES}"):
            self._fetch_file(name, folder, name)
        self._fetch_file(newest, folder, f"{_JOURNAL}/{RECORDS}")

    def _fetch_file(self, name: str, folder: Path, target_name: str) -> None:
        target = confined(folder, target_name)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, self._read(f"{self._base}/{name}"))

    def remove(self) -> None:
        """Delete all copies of this run."""
        ask(lambda: self._fs.delete_dir(self._base))

    def _delete_manifest(self, step: int) -> None:
        manifest = f"checkpoints/step-{step:08d}/{_MANIFEST}"
        if self._is_file(manifest):
            self._delete_file(manifest)

    def _check_owner(self) -> None:
        if self._read(f"{self._base}/owner").decode() != self._token:
            raise FencedError(f"{self._base}: another process continues this run; this one stops")

    def _is_file(self, name: str) -> bool:
        info = ask(lambda: self._fs.get_file_info(f"{self._base}/{name}"))
        return info.type == fs.FileType.File

    def _delete_file(self, name: str) -> None:
        ask(lambda: self._fs.delete_file(f"{self._base}/{name}"))

    def _create_dir(self, path: str) -> None:
        ask(lambda: self._fs.create_dir(path, recursive=True))

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self._base}/{name}"
        self._create_dir(path.rpartition("/")[0])

        def write() -> None:
            with self._fs.open_output_stream(path) as stream:
                stream.write(data)

        ask(write, len(data))

    def _read(self, path: str) -> bytes:
        def read() -> bytes:
            with self._fs.open_input_stream(path) as stream:
                return stream.read()

        return ask(read, max(0, ask(lambda: self._fs.get_file_info(path)).size or 0))


def open_file_system(uri: str) -> tuple[fs.FileSystem, str]:
    """Open the file system of an address; returns it and the path there."""
    return fs.FileSystem.from_uri(uri)


def find_newest(run: RunFolder, mirror: Mirror | None) -> Checkpoint | None:
    """Find the newest good checkpoint of folder and mirror; None where there is none.

    The mirror has a newer one where another machine went on in between.

    Args:
        run: The run's folder.
        mirror: Its copies, where it has any.

    Raises:
        NoGoodCheckpointError: Where the folder has some, none is good, and no copy is.
    """
    try:
        newest = run.newest()
    except NoGoodCheckpointError:
        copy = None if mirror is None else mirror.fetch(run)
        if copy is None:
            raise
        return copy
    if mirror is None:
        return newest
    try:
        return mirror.fetch(run, after=newest.step if newest else -1) or newest
    except (OSError, pa.ArrowException) as error:
        if newest is None:
            raise
        _log.warning("mirror not looked into, it may hold a newer checkpoint: %s", error)
        return newest


def fetch_newest_journal(run: RunFolder, uri: str) -> None:
    """Fetch a run's journal from the mirror if it is longer there: another machine went on.

    Args:
        run: The run's folder.
        uri: Address below which runs are kept.
    """
    try:
        Mirror(uri, mirror_name(run.path)).fetch_journal(run.path)
    except (OSError, ValueError, pa.ArrowException) as error:
        _log.warning("mirror not looked into, it may hold a newer journal: %s", error)


def check_mirror(uri: str) -> None:
    """Check that an address can be written to.

    Raises:
        ValueError: Where pyarrow does not know the address, or nothing can be written there.
    """
    try:
        Mirror(uri, f"probe-{uuid.uuid4().hex}").remove()
    except OSError as error:
        raise ValueError(str(error)) from error
