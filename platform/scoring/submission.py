"""Files that the owners of a benchmark score: their names, their class ids."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...datasets.encoded_pixels import encode_png
from ...datasets.packed.files import write_file
from ...datasets.spec import LabelSpace, load_label_space
from ..config.errors import ConfigError
from ..prediction.outputs import encode_label


class SubmissionFormat(NamedTuple):
    """What the owners of a benchmark ask for.

    Attributes:
        space: Label space whose raw values stand in the files.
        ending: What a file's name has behind the row's id.
        palette: Whether files carry the colours of the classes.
    """

    space: str
    ending: str
    palette: bool = False


FORMATS = {
    "cityscapes": SubmissionFormat("cityscapes", "_pred_labelIds.png"),
    "ade20k": SubmissionFormat("ade20k", ".png"),
    "voc": SubmissionFormat("pascal_voc12", ".png", palette=True),
}


class SubmissionWriter:
    """Writes predictions in a benchmark's own ids.

    Args:
        kind: Key of `FORMATS`.
        folder: Folder to write into, which exists.
        space: Classes of the network.

    Raises:
        ConfigError: Where the network has other classes than the benchmark.
    """

    def __init__(self, kind: str, folder: Path, space: LabelSpace) -> None:
        self._format = FORMATS[kind]
        self._folder = folder
        official = load_label_space(self._format.space)
        if official.classes != space.classes:
            raise ConfigError(
                f"--submission {kind}: needs the {len(official.classes)} classes of "
                f"{official.name}, the run has {len(space.classes)} of {space.name}"
            )
        self._space = official
        self._table = np.zeros(256, np.uint8)
        # Of several raw values that are trained as one class the first is the class's own.
        for raw, train in sorted(official.raw_to_train.items(), reverse=True):
            if train != official.ignore_label:
                self._table[train] = raw

    def write(self, row_id: str, label: np.ndarray) -> Path:
        """Write one prediction.

        Args:
            row_id: Id of the row; folders in it become part of the name.
            label: (H, W) uint8 train ids.

        Returns:
            The file.
        """
        path = self._folder / f"{row_id.replace('/', '_')}{self._format.ending}"
        ids = self._table[label]
        data = encode_label(ids, self._space) if self._format.palette else encode_png(ids)
        write_file(path, data)
        return path
