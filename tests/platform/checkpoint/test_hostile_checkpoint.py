"""A checkpoint that somebody made up is refused in bounded time, with the file and the key."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeseg.platform.checkpoint import checkpoint as module
from spikeseg.platform.checkpoint.checkpoint import manifest_digest, read_checkpoint, write_synced
from spikeseg.platform.checkpoint.run_folder import (
    NoGoodCheckpointError,
    RunFolder,
    find_checkpoint,
)

HISTORY = [{"step": 5, "metrics": {"val/mIoU": 10.0}}]


def saved(path: Path, *steps: int) -> RunFolder:
    run = RunFolder(path)
    run.claim()
    for step in steps:
        history = [{"step": step, "metrics": {"val/mIoU": 10.0}}]
        run.save(step, {"model": {"weight": torch.arange(6.0)}}, {"history": history})
    return run


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and put its own digest right, as whoever makes one up would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["digest"]
    change(manifest)
    manifest["digest"] = manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def replace(folder: Path, name: str, data: bytes) -> None:
    """Change a file, and its entry in the manifest."""
    entry = write_synced(folder / name, data)
    rewrite(folder, lambda manifest: manifest["files"].update({name: entry}))


def edit_state(**values: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        replace(folder, "state.json", json.dumps({**state, **values}).encode())

    return edit


def edit(**values: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda manifest: manifest.update(values))


def entry(**values: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(
        folder, lambda manifest: manifest["files"]["model.safetensors"].update(values)
    )


def name_file(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        hashes = {"bytes": 0, "sha256": "0" * 64}
        rewrite(folder, lambda manifest: manifest["files"].update({name: hashes}))

    return change


def write_manifest(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "manifest.json").write_text(text)


def put_pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def put_link(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "path to a device": (
        name_file("../../../../dev/zero"),
        r"manifest.json: files: '\.\./.*/zero'",
    ),
    "absolute path": (name_file("/etc/passwd"), "manifest.json: files: '/etc/passwd' is no name"),
    "line in a name": (name_file("a\nb.safetensors"), r"files: 'a\\nb.safetensors' is no name"),
    "no files": (edit(files={}), "manifest.json: files must name state.json"),
    "files is a list": (edit(files=[["state.json", {}]]), "manifest.json: files must name"),
    "files is a number": (edit(files=3), "manifest.json: files must name"),
    "entry is no table": (edit(files={"state.json": 3}), "files: state.json: bytes must be"),
    "bytes is a text": (entry(bytes="24"), "model.safetensors: bytes must be a whole number"),
    "bytes is wrong": (entry(bytes=10**30), r"model.safetensors: has \d+ bytes, the manifest says"),
    "sha256 is a number": (entry(sha256=5), "model.safetensors: sha256 must be 64 hexa"),
    "step is a text": (edit(step="5"), "its manifest is of step '5'"),
    "step is true": (edit(step=True), "its manifest is of step True"),
    "format is a list": (edit(format=[1]), r"format \[1\], this version reads 1"),
    "manifest is a list": (write_manifest("[]"), "manifest.json: must be a JSON object, got list"),
    "nested manifest": (write_manifest("[" * 100_000), "manifest.json: no readable JSON"),
    "long number": (write_manifest('{"step": ' + "9" * 9000 + "}"), "no readable JSON"),
    "huge manifest": (write_manifest(" " * (2 << 20)), "manifest.json: has more than 1048576"),
    "manifest is a pipe": (put_pipe("manifest.json"), "manifest.json: is no regular file"),
    "state is a pipe": (put_pipe("state.json"), "state.json: is no regular file"),
    "tensors are a device": (put_link, "model.safetensors: is no regular file"),
    "history is a text": (edit_state(history="no"), "state.json: history must be a list, got str"),
    "item is a number": (edit_state(history=[1]), "history: item 0 must have a step and metrics"),
    "score is a text": (
        edit_state(history=[{"step": 5, "metrics": {"val/mIoU": "best"}}]),
        "history: item 0: val/mIoU must be a number",
    ),
    "another step": (edit_state(step=6), "state.json: step is 6, the manifest's is 5"),
}


@pytest.mark.parametrize(("change", "sentence"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_made_up_checkpoint_is_refused_with_file_and_key(
    tmp_path: Path, change: Callable[[Path], object], sentence: str
) -> None:
    folder = saved(tmp_path / "run", 5).path / "checkpoints" / "step-00000005"
    change(folder)
    with pytest.raises(ValueError, match=sentence):
        read_checkpoint(folder)


def test_a_state_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "run", 5).path / "checkpoints" / "step-00000005"
    edit_state(note="a" * 5000)(folder)
    monkeypatch.setattr(module, "_STATE_BYTES", 4096)
    with pytest.raises(ValueError, match=r"state\.json: has more than 4096 bytes"):
        read_checkpoint(folder)


def header(text: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no readable safetensors file"),
        (struct.pack("<Q", 2**63) + b"{}", "its header would have 9223372036854775808 bytes"),
        (struct.pack("<Q", 1 << 20) + b"{}", "no readable safetensors file"),
        (header("[" * 100_000), "no readable safetensors file"),
        (
            header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,1099511627776]}}'),
            "no readable",
        ),
        (
            header('{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}'),
            "no readable safetensors file",
        ),
        (header('{"a":{"dtype":"X","shape":[0],"data_offsets":[0,0]}}'), "no readable"),
    ],
    ids=["empty", "huge header", "short", "nested", "far offset", "overflow", "unknown type"],
)
def test_made_up_tensors_are_refused_with_their_file(
    tmp_path: Path, data: bytes, sentence: str
) -> None:
    folder = saved(tmp_path / "run", 5).path / "checkpoints" / "step-00000005"
    replace(folder, "model.safetensors", data)
    with pytest.raises(ValueError, match=rf"model\.safetensors: {sentence}"):
        read_checkpoint(folder).tensors("model")


def test_tensors_that_the_manifest_does_not_name_are_not_loaded(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 5)
    folder = run.path / "checkpoints" / "step-00000005"
    (folder / "ema.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert read_checkpoint(folder).tensors("ema") == {}
    assert set(read_checkpoint(folder).state_dict()) == {"state", "model"}


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("damaged", [(10,), (5, 10)], ids=["newest", "all"])
def test_who_reads_a_run_of_others_changes_nothing_in_it(
    tmp_path: Path, damaged: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "run", 5, 10).path
    for step in damaged:
        (path / "checkpoints" / f"step-{step:08d}" / "model.safetensors").write_bytes(b"torn")
    (path / "attempts" / "000001").unlink()
    (path / "attempts").rmdir()
    before = tree(path)
    if len(damaged) == 1:
        assert find_checkpoint(path).step == 5
        assert "checkpoint left out: " in caplog.text
    else:
        with pytest.raises(NoGoodCheckpointError, match="none of its 2 checkpoints is good"):
            find_checkpoint(path)
    assert tree(path) == before
    # Nor does a process that has opened the run's folder without claiming it.
    unclaimed = RunFolder(path)
    if len(damaged) == 1:
        newest = unclaimed.newest()
        assert newest is not None and newest.step == 5
        assert not (path / "quarantine").exists()
    # The run's own writer moves them, at its next start.
    unclaimed.claim()
    if len(damaged) == 1:
        newest = unclaimed.newest()
        assert newest is not None and newest.step == 5
        assert [p.name[:13] for p in (path / "quarantine").iterdir()] == ["step-00000010"]
        assert "moved to" in unclaimed.damaged[0]
