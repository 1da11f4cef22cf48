"""A machine, an experiment and data that are good, to which the doctor's tests add one mistake."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.spec import EncodedRow, RawRow
from spikeseg.platform.doctor.catalog import CHECKS
from spikeseg.platform.doctor.findings import Finding
from spikeseg.platform.doctor.machine import Machine
from spikeseg.platform.doctor.subject import Subject, read_subject

GOOD = Machine(
    cpus=8,
    usable_cpus=8,
    affinity=8,
    available=32 * 10**9,
    memory_limit=None,
    memory_used=None,
    open_files=65536,
    tasks=65536,
    group_tasks=None,
    running_tasks=100,
    shared_memory=8 * 10**9,
    huge_pages="madvise",
    ports=28232,
    gpu_devices=False,
)
SMALL = ("data.transform.crop=[32, 32]", "trainer.micro_batch_size=4")


class RepeatedShapes(Shapes):
    """Shapes whose validation images are the first training images."""

    def read(self, row: RawRow) -> EncodedRow:
        """Draw a row; of val the training row of the same number."""
        read = super().read(replace(row, id=row.id.replace("val", "train")))
        return replace(read, row=replace(read.row, id=row.id))


def pack_good(folder: Path, layout: type[Shapes] = Shapes) -> Path:
    """Data without a mistake: 64 training rows, 24 each for val and test, all classes in each."""
    options = ShapesOptions(size=(32, 32), train=64, val=24, test=24, objects=(1, 2))
    pack("shapes", layout(options), Path(), folder, workers=1)
    return folder


class Bench:
    """Builds a subject with mistakes, and runs single checks on it.

    Args:
        data: Folder of `pack_good`, which stays as it is.
        folder: Of this test alone.
    """

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self.folder = folder

    def subject(
        self,
        *fields: str,
        name: str | None = "shapes_tiny",
        machine: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        **how: Any,
    ) -> Subject:
        """A subject of small steps on the good data, with fields over it."""
        how.setdefault("storage", self.folder / "runs")
        given = () if name is None else (f"data.path={self.data}", *SMALL, *fields)
        return read_subject(
            name,
            given,
            machine=GOOD._replace(**(machine or {})),
            environment=environment or {},
            **how,
        )

    def copy_data(self, edit: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """A copy of the data that may be damaged, with an edited manifest."""
        copied = self.folder / "data"
        shutil.copytree(self.data, copied)
        if edit is not None:
            manifest = json.loads((copied / "manifest.json").read_text())
            edit(manifest)
            (copied / "manifest.json").write_text(json.dumps(manifest))
        return copied


def look(subject: Subject, name: str) -> Finding:
    """What one check of the catalog finds."""
    check = next(check for check in CHECKS if check.name == name)
    return check.look(subject)
