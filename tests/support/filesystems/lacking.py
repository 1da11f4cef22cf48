"""Compile the stand-in for file systems that lack something, and run programs on it."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

KINDS = ("folder_fsync", "chmod", "unlink_open", "flock", "mmap", "link", "inotify")


@functools.cache
def _library() -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = Path(tempfile.mkdtemp(prefix="spikeseg-lacking-")) / "lacking.so"
    source = Path(__file__).with_suffix(".c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the stand-in does not compile here: {built.stderr[:200]}")
    return library


def run_lacking(
    arguments: Sequence[str | Path], root: Path, *kinds: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with a folder on a file system that lacks some kinds of things.

    Args:
        arguments: Of Python, such as `-m spikeseg.jobs.cli train`.
        root: The folder.
        kinds: Of `KINDS`, or `space`.
    """
    environment = {
        **os.environ,
        "LD_PRELOAD": str(_library()),
        "LACKING": ",".join(kinds),
        "LACKING_ROOT": str(root),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
