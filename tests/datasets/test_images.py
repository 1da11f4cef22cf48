"""Raw files become the pixels that training reads later, and nothing damaged does."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from spikeseg.datasets import encoded_pixels, images
from spikeseg.datasets.encoded_pixels import decode_image
from spikeseg.datasets.images import count_values, read_image, to_train_ids
from spikeseg.datasets.spec import DataError, load_label_space


def picture(mode: str) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (20, 30, 3), np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_is_read_is_what_is_decoded_from_the_stored_bytes(
    tmp_path: Path, kind: str, mode: str
) -> None:
    path = tmp_path / "a1"
    picture(mode).save(path, kind)
    data, image, verbatim = read_image(path)
    np.testing.assert_array_equal(image, decode_image(data))
    assert verbatim == (mode == "RGB")
    assert (data == path.read_bytes()) == verbatim


def test_a_png_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a1"
    picture("RGB").save(path, "PNG")

    def decoded(*arguments: object) -> None:
        raise AssertionError("Pillow has decoded it already")

    monkeypatch.setattr(images, "decode_image", decoded)
    assert read_image(path)[1].shape == (20, 30, 3)


def test_a_jpeg_that_only_one_decoder_refuses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a1"
    picture("RGB").save(path, "JPEG")

    def refuse(*arguments: object) -> None:
        raise OSError("broken data stream")

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", refuse)
        with pytest.raises(DataError, match=r"a1: the image cannot be decoded \(broken data"):
            read_image(path)
    monkeypatch.setattr(encoded_pixels, "_decode", lambda *_: None)
    with pytest.raises(DataError, match=r"a1: the image cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize("shape", [(1, 1), (17, 31), (5000, 4001)])
def test_values_are_counted_exactly(shape: tuple[int, int]) -> None:
    # The largest has more pixels of one value than float32 can count one by one.
    values = np.full(shape, 7, np.uint8)
    values.flat[0] = 200
    expected = np.zeros(256, np.int64)
    expected[200] += 1
    expected[7] += values.size - 1
    np.testing.assert_array_equal(count_values(values), expected)


def test_train_ids_are_the_same_from_8_and_from_16_bits() -> None:
    space = load_label_space("cityscapes")
    raw = np.arange(34, dtype=np.uint8).reshape(2, 17)
    expected = [space.raw_to_train[value] for value in range(34)]
    for values in (raw, raw.astype(np.uint16)):
        found = to_train_ids(values, space, Path("a1.png"))
        assert found.dtype == np.uint8
        assert found.ravel().tolist() == expected
