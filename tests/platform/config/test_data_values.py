"""Values that a recipe leaves to the data: picked, reasoned, stored as numbers, refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
from plans import load

import spikeseg
from spikeseg.datasets.encoded_pixels import encode_bands, encode_png
from spikeseg.datasets.packed.pack import pack
from spikeseg.datasets.spec import EncodedRow, LabelSpace, RawRow, Row
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.config.recipes import dump, load_experiment, load_resolved


class Drawn:
    """Generated rows of given sizes; class 1 covers a given share."""

    needs_source = False
    official_rows: dict[str, int] = {}  # noqa: RUF012
    options: dict[str, int]

    def __init__(
        self,
        sizes: list[tuple[int, int]],
        *,
        share: float = 0.5,
        test: bool = True,
        classes: int = 2,
        channels: int = 3,
    ) -> None:
        names, grey = tuple(f"c{n}" for n in range(classes)), ((0, 0, 0),) * classes
        self.label_space = LabelSpace("drawn", names, grey, 255, {n: n for n in range(classes)})
        self._sizes, self._share, self._channels = sizes, share, channels
        self.options = {} if channels == 3 else {"channels": channels}
        self._splits = ("val", "test") if test else ("val",)

    def rows(self, source: Path, *, partial: bool) -> list[RawRow]:
        """All of them."""
        train = [RawRow(f"{n}", "train", source, source) for n in range(len(self._sizes))]
        return train + [RawRow("0", split, source, source) for split in self._splits]

    def read(self, row: RawRow) -> EncodedRow:
        """Draw one."""
        height, width = self._sizes[int(row.id)]
        image = np.full((height, width, 3), (10, 20, 30), np.uint8)
        image[::2] += 20
        image = np.concatenate([image] * 6, 2)[..., : self._channels]
        label = (np.arange(width) < self._share * width).astype(np.uint8)
        label = np.repeat(label[None], height, 0)
        encoded = encode_png(image) if self._channels == 3 else encode_bands(image)
        return EncodedRow(Row(row.id, image, label), encoded, verbatim=False)


def pack_drawn(folder: Path, sizes: list[tuple[int, int]], **more: object) -> str:
    pack("drawn", Drawn(sizes, **more), Path(), folder)  # type: ignore[arg-type]
    return f"data.path={folder}"


def test_sizes_count_and_shares_decide(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "few", [(96, 128)] * 20, share=0.1)
    resolved = load_experiment("own", [data])
    config = resolved.config
    assert config.model.num_classes == 2
    assert config.data.transform.crop == config.data.transform.box == (96, 128)
    assert config.data.transform.mean == (20, 30, 40) and config.data.transform.std == (10,) * 3
    assert config.loss.class_balance == 0.5
    batch = config.trainer.micro_batch_size * config.trainer.micro_batches
    assert config.trainer.max_steps * batch == 6000
    assert config.trainer.test
    reasons = {pick.key: pick.reason for pick in resolved.picked}
    assert reasons["loss.class_balance"].startswith("the most frequent class has 8.8 times")
    assert resolved.origins["trainer.max_steps"] == (
        "picked from the data: 300 passes over 20 training images, 8 a step"
    )


@pytest.mark.parametrize(
    ("sizes", "box"),
    [
        ([(1000, 2000)] * 3, (96, 208)),
        ([(40, 60), (60, 40)] * 4, (48, 48)),
        ([(9, 12)] * 3, (32, 32)),
        ([(300, 100)] * 3, (240, 80)),
    ],
    ids=["large", "mixed", "tiny", "upright"],
)
def test_the_box_follows_the_middle_image(
    sizes: list[tuple[int, int]], box: tuple[int, int], tmp_path: Path
) -> None:
    data = pack_drawn(tmp_path / "data", sizes)
    assert load_experiment("own", [data]).config.data.transform.box == box


def test_many_images_are_seen_fewer_times_and_balanced_classes_have_no_weight(
    tmp_path: Path,
) -> None:
    data = pack_drawn(tmp_path / "many", [(16, 16)] * 2600, test=False)
    config = load_experiment("own", [data]).config
    assert config.trainer.max_steps * 8 == 26_000
    assert config.loss.class_balance == 0
    assert not config.trainer.test


def test_many_classes_get_more_queries(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "classes", [(16, 16)] * 3, classes=30)
    assert load_experiment("own", [data]).config.model.query.num_queries == 38


def test_what_is_given_is_kept_and_what_depends_on_it_follows(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 10)
    items = [data, "trainer.max_steps=100", "data.transform.box=[48, 48]", "model.num_classes=5"]
    config = load_experiment("own", items).config
    assert (config.trainer.max_steps, config.trainer.evaluate_every) == (100, 10)
    assert config.optimizer.warmup_steps == 5
    assert config.data.transform.crop == (48, 48) and config.data.transform.test_box == (64, 64)
    assert config.model.num_classes == 5
    started = load_experiment("own", [data, f"init.backbone={tmp_path}"]).config.data.transform
    assert started.mean == (123.675, 116.28, 103.53)


def test_a_run_that_is_continued_gives_its_own_mean_and_deviation(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    first = load_experiment("own", [data, "data.transform.mean=[1, 2, 3]"])
    checkpoint = tmp_path / "run" / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(dump(first.config))
    for start in (tmp_path / "run", checkpoint):
        again = load_experiment("own", [data, f"init.segmentor={start}"]).config.data.transform
        assert (again.mean, again.std) == ((1, 2, 3), first.config.data.transform.std)


@pytest.mark.parametrize("key", ["init.segmentor", "init.backbone"])
def test_initial_weights_of_a_run_bring_its_colours(key: str, tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    first = load_experiment("own", [data, "data.transform.mean=[1, 2, 3]"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(dump(first.config))
    again = load_experiment("own", [data, f"{key}={tmp_path / 'run'}"]).config.data.transform
    assert again.mean == (1, 2, 3)


def test_channels_of_the_data_are_picked_and_others_refused(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 4, channels=5)
    config = load_experiment("own", [data]).config
    assert config.model.in_channels == 5 == len(config.data.transform.mean)
    # 20 and 40, 30 and 50 in turns; the fourth and fifth are the first and second again.
    assert config.data.transform.mean == (20, 30, 40, 20, 30)
    assert config.data.transform.std == (10, 10, 10, 10, 10)
    # ImageNet's colours are of three channels, and its weights are refused before a training.
    assert load_experiment("own", [data, "init.backbone=a.pth"]).config.model.in_channels == 5
    with pytest.raises(ConfigError, match=r"in_channels: 3, but the images of .* have 5 channels"):
        load_experiment("own", [data, "model.in_channels=3"])
    with pytest.raises(ConfigError, match="photometric and jitter change RGB colours"):
        load_experiment("own", [data, "data.transform.photometric=true"])
    with pytest.raises(ConfigError, match=r"must have 5 numbers, one for each"):
        means = ["data.transform.mean=[1, 2, 3]", "data.transform.std=[1, 2, 3]"]
        load_experiment("own", [data, *means])


def test_data_without_counted_colours_is_measured(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    counted = load_experiment("own", [data]).config.data.transform
    manifest = tmp_path / "data" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["colours"]
    manifest.write_text(json.dumps(content))
    assert load_experiment("own", [data]).config.data.transform == counted


def test_a_stored_configuration_holds_numbers_and_needs_no_data(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    resolved = load_experiment("own", [data])
    text = dump(resolved.config)
    assert "from_data" not in text
    (tmp_path / "data" / "manifest.json").unlink()
    assert load_resolved(text).config == resolved.config


def test_a_recipe_that_extends_own_and_any_other_may_leave_values_to_the_data(
    tmp_path: Path,
) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    (tmp_path / "mine.yaml").write_text("extends: [own]\nname: mine\nmodel: {decoder: fpn}\n")
    assert load_experiment(str(tmp_path / "mine.yaml"), [data]).config.model.num_classes == 2
    other = load_experiment("shapes_tiny", [data, "model.num_classes=from_data"])
    assert other.config.model.num_classes == 2


def test_what_cannot_be_picked_is_refused_with_its_origin(tmp_path: Path) -> None:
    data = pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    with pytest.raises(
        ConfigError, match=r"command line: trainer\.workers: from_data is possible for"
    ):
        load_experiment("own", [data, "trainer.workers=from_data"])
    with pytest.raises(
        ConfigError, match=r"command line: data\.path: .*no such folder \(15 values"
    ):
        load_experiment("own", ["data.path=/nowhere"])
    with pytest.raises(ConfigError, match=r"own\.yaml:\d+: data\.path: "):
        load_experiment("own")
    with pytest.raises(ConfigError, match="micro_batches"):
        load_experiment("own", [data, "trainer.micro_batches=0"])


def test_values_of_python_are_known_before_the_data_is_asked(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    values = {"data.path": folder, "trainer.max_steps": 50}
    resolved = load_experiment("own", values=values)
    assert resolved.config.trainer.evaluate_every == 5
    assert resolved.origins["data.path"] == "overrides"
    with pytest.raises(ConfigError, match=r"model\.num_classes: 7, but .* has 2 classes"):
        spikeseg.train("own", values | {"model.num_classes": 7}, storage=tmp_path / "runs")


def test_a_sweep_may_have_a_base_that_leaves_values_to_the_data(tmp_path: Path) -> None:
    pack_drawn(tmp_path / "data", [(64, 64)] * 4)
    items = [f"data.path={tmp_path}/data", "trainer.max_steps=20", "trainer.evaluate_every=10"]
    config = load(tmp_path, base="own", overrides=items).base.config
    assert (config.model.num_classes, config.trainer.max_steps) == (2, 20)
