"""Videos frame by frame: read as RGB, written as a lossless label video and an overlay."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import cv2
import numpy as np

from ...datasets.packed.files import place_file
from ...datasets.pictures import overlay
from ...datasets.spec import DataError, LabelSpace

# Any value of a byte comes back as it was written.
LABEL_ENDING, _LABEL_CODEC = "label.mkv", "FFV1"
OVERLAY_ENDING, _OVERLAY_CODEC = "overlay.mp4", "mp4v"
_DEFAULT_RATE = 25.0


class VideoFacts(NamedTuple):
    """What a video says of itself.

    Attributes:
        height: Rows of a frame.
        width: Columns of a frame.
        rate: Frames a second.
        frames: Frames, as its header says; 0 where it does not.
    """

    height: int
    width: int
    rate: float
    frames: int


class VideoReader:
    """A video that is read once from its first frame to its last.

    Args:
        path: The file.

    Raises:
        DataError: Where it is no video that this machine decodes.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._capture = cv2.VideoCapture(path)
        if not self._capture.isOpened():
            raise DataError(f"{path}: not a video that can be decoded here")
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.facts = VideoFacts(
            int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            rate if 0 < rate < 1000 else _DEFAULT_RATE,
            max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))),
        )

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 RGB frames.

        Raises:
            DataError: Where it ends before the first frame, or before its header says.
        """
        count = 0
        try:
            while True:
                done, frame = self._capture.read()
                if not done:
                    break
                count += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()
        if not count or count < self.facts.frames:
            raise DataError(
                f"{self._path}: {count} frames could be decoded, its header says "
                f"{self.facts.frames}: it is damaged"
            )


class VideoWriter:
    """Writes label and overlay frames; the files get their names when the block ends well.

    Args:
        paths: Ending of each file that is wanted -> its path.
        facts: Size and rate.
        space: Colours of the overlay.
    """

    def __init__(self, paths: dict[str, Path], facts: VideoFacts, space: LabelSpace) -> None:
        self._space = space
        self._files: dict[str, tuple[cv2.VideoWriter, Path, Path]] = {}
        for ending, path in paths.items():
            label = ending == LABEL_ENDING
            # OpenCV tells the container by the name's ending.
            writing = path.with_name(f".{uuid.uuid4().hex}-{ending}")
            codec = cv2.VideoWriter.fourcc(*(_LABEL_CODEC if label else _OVERLAY_CODEC))
            size = (facts.width + facts.width % 2, facts.height + facts.height % 2)
            writer = cv2.VideoWriter(str(writing), codec, facts.rate, size, isColor=not label)
            if not writer.isOpened():
                raise DataError(f"{path}: OpenCV on this machine cannot write this video")
            self._files[ending] = (writer, writing, path)

    def __enter__(self) -> Self:
        return self

    def write(self, frame: np.ndarray, label: np.ndarray) -> None:
        """Append a frame; one of odd sides gets its last row or column twice, as codecs need.

        Args:
            frame: (H, W, 3) uint8 RGB.
            label: (H, W) uint8 train ids.
        """
        for ending, (writer, _, _) in self._files.items():
            if ending == LABEL_ENDING:
                writer.write(_make_even(label))
            else:
                drawn = overlay(frame, label, self._space)
                writer.write(_make_even(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for writer, writing, path in self._files.values():
            writer.release()
            if kind is None:
                place_file(writing, path)
            else:
                writing.unlink(missing_ok=True)


def _make_even(frame: np.ndarray) -> np.ndarray:
    """Repeat the last row or column where there is an odd number of them."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        return cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return frame
