"""State of the package's code: its digest, its commit, and how it differs from that."""

import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ..cluster.node_probe import PACKAGE_FOLDERS, PACKAGE_SUFFIXES, digest_package
from ..config.code_redaction import scrubbed_code

_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("__init__.py", "pyproject.toml", *PACKAGE_FOLDERS)
_LONGEST_DIFF = 1_000_000


@functools.cache
def git_state() -> dict[str, str]:
    """Commit of the code, whether the code differs from it, and the difference's digest.

    Empty where no repository holds the package's own files: one that merely lies around an
    installed package has a commit of something else.
    """
    try:
        # A folder of installed packages in a repository is nothing that this knows.
        _git("ls-files", "--error-unmatch", "--", "__init__.py")
        state = {
            "git_sha": _git("rev-parse", "HEAD").strip(),
            "dirty": str(bool(_git("status", "--porcelain", "--", *_CODE))).lower(),
        }
        if state["dirty"] == "true":
            difference = _difference().encode(errors="replace")
            state["code_diff_digest"] = hashlib.sha256(difference).hexdigest()
    except (OSError, subprocess.CalledProcessError):
        return {}
    return state


@functools.cache
def code_diff() -> str:
    """How the package's code differs from the commit, new files included; empty where it does not.

    Only the package's own folders are looked at, so that a stray file of settings stays out, and
    literals that may be secrets are hidden as far as their form or name is known. `git apply`
    takes the text.
    """
    if not git_state():
        return ""
    try:
        text = _difference()
    except (OSError, subprocess.CalledProcessError):
        return ""
    cut = text[:_LONGEST_DIFF]
    if len(cut) == len(text):
        return scrubbed_code(text)
    # Back to a whole line: half of a token would not be recognised.
    cut = cut[: cut.rfind("\n") + 1]
    return scrubbed_code(cut) + "\n[cut here: the difference is too long]\n"


@functools.cache
def code_digest() -> str:
    """SHA-256 over the package's files, which names the code where no git is (as in a job)."""
    return digest_package(_ROOT)


def _difference() -> str:
    """The difference of the package's own folders from the commit, as it is."""
    with tempfile.TemporaryDirectory(prefix="spikeseg-index-") as folder:
        # A copy of the index that knows the new files too; the checkout's own stays as it is.
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git("read-tree", "HEAD", variables=index)
        others = _git("ls-files", "-z", "--others", "--exclude-standard", "--", *_CODE)
        new = [name for name in others.split("\0") if Path(name).suffix in PACKAGE_SUFFIXES]
        if new:
            _git("add", "--intent-to-add", "--", *new, variables=index)
        plain = ("--no-ext-diff", "--no-color", "--binary")
        return _git("diff", *plain, "HEAD", "--", *_CODE, variables=index)


def _git(*arguments: str, variables: Mapping[str, str] | None = None) -> str:
    # GIT_DIR and its like, which a hook sets, name a repository that need not hold this package.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(
        ["git", "-C", str(_ROOT), "-c", "core.fsmonitor=false", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        env={**inherited, **(variables or {})},
    ).stdout
