"""What earlier versions left behind, to be read by this one."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_STORED = Path(__file__).resolve().parents[1] / "compatibility" / "stored"
_MADE_IN = "/srv/spikeseg"


@dataclass(frozen=True)
class Stored:
    """A copy of one version's examples; `make_stored.py` says how they were made.

    Attributes:
        version: The version that made them.
        data: The packed data set.
        storage: The folder of all runs.
        run: A training that was killed behind its checkpoint.
        sweep: A sweep of two trials that was extended to three and killed in the third.
        expected: What that version said of them, and what they hold without any of its code.
    """

    version: str
    data: Path
    storage: Path
    run: Path
    sweep: Path
    expected: dict[str, Any]

    @classmethod
    def copied(cls, version: str, folder: Path) -> Self:
        """A copy of a version's examples in a new folder."""
        shutil.copytree(_STORED / version, folder)
        (run,) = folder.glob("storage/stored-*")
        (sweep,) = folder.glob("storage/sweep-stored-*")
        expected = json.loads((folder / "expected.json").read_text())
        return cls(version, folder / "data", folder / "storage", run, sweep, expected)

    @property
    def data_here(self) -> str:
        """The item of the command line that says where the data lies now."""
        return f"data.path={self.data}"

    @property
    def checkpoint(self) -> Path:
        """The training's only checkpoint."""
        (folder,) = self.run.glob("checkpoints/step-*")
        return folder

    def move_sweep(self, name: str) -> Path:
        """The sweep of a recipe, its plan naming the copy instead of the folder it was made in."""
        (sweep,) = self.storage.glob(f"sweep-{name}-*")
        plan = sweep / "plan.json"
        before = plan.read_text()
        assert f"{_MADE_IN}/data" in before
        plan.write_text(before.replace(_MADE_IN, str(self.storage.parent)))
        return sweep


def stored_versions() -> list[str]:
    """Versions of which there are examples."""
    return sorted(path.name for path in _STORED.iterdir())
