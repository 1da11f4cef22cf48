"""Weights load whole or not at all; what a file leaves open is refused or said."""

import re
import sys
import types
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import Golden, golden_files
from models import small_config
from torch import Tensor, nn

from spikeseg.jobs.cli import root
from spikeseg.model.neuron.integer_lif import IntegerLIF
from spikeseg.model.neuron.lif import LIF
from spikeseg.model.published.classifier import build_classifier
from spikeseg.model.published.sizes import head_neuron
from spikeseg.model.published.weights import (
    convert_published,
    load_all,
    load_backbone,
    load_published,
    load_weights,
    read_converted,
    read_published,
    to_published,
    write_published,
)
from spikeseg.model.segmentor import build_uncalibrated_segmentor

FIRST = "backbone.downsample1_1.encode_conv.weight"


def segmentor(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_uncalibrated_segmentor(small_config())


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed_keys(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize(
    ("key", "other"),
    [(FIRST, FIRST.removeprefix("backbone.")), ("decode_head.w", "decode_head.embedding.w")],
    ids=["backbone", "embedding"],
)
def test_a_key_in_two_forms_is_refused_by_name(key: str, other: str) -> None:
    model = segmentor(1)
    state = to_published(segmentor(2))
    state[other] = torch.zeros_like(state[key])
    said = f"file: {key} is given twice, as {key} and as {other}"
    for load in (load_all, load_published):
        with pytest.raises(ValueError, match=said):
            load(model, state, name="file")


def test_another_segmentors_file_gives_its_backbone_alone(tmp_path: Path) -> None:
    model, other = segmentor(1), segmentor(2)
    before = copy_of(model)
    write_published(other, tmp_path / "segmentor.pth")
    report = load_backbone(model, tmp_path / "segmentor.pth")
    decoder = {key for key in to_published(model) if key.startswith("decode_head.")}
    assert set(report.unexpected) == set(report.missing) == decoder
    assert {key.partition(".")[0] for key in changed_keys(model, before)} == {"backbone"}
    assert all(
        torch.equal(value, other.state_dict()[key])
        for key, value in model.state_dict().items()
        if key.startswith("backbone.")
    )


def without(state: dict[str, Tensor]) -> None:
    del state[FIRST]


def bent(state: dict[str, Tensor]) -> None:
    state[FIRST] = torch.zeros(2, 2)


def with_more(state: dict[str, Tensor]) -> None:
    state["backbone.stranger"] = torch.zeros(1)


def not_finite(state: dict[str, Tensor]) -> None:
    state[FIRST].view(-1)[2:5] = torch.tensor([float("nan"), float("inf"), -float("inf")])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without, f"missing {FIRST}"),
        (bent, rf"{FIRST} is \(8, 3, 7, 7\) in the model and \(2, 2\) in the file"),
        (with_more, "unexpected backbone.stranger"),
        (not_finite, f"{FIRST} must be finite, 3 of 1176 values are not"),
    ],
)
@pytest.mark.parametrize("load", [load_weights, load_backbone])
def test_a_refused_file_leaves_the_model_as_it_was(
    tmp_path: Path,
    load: Callable[[nn.Module, Path], Any],
    spoil: Callable[[dict[str, Tensor]], None],
    said: str,
) -> None:
    model = segmentor(1)
    before = copy_of(model)
    state = {key: value.clone() for key, value in to_published(segmentor(2)).items()}
    spoil(state)
    torch.save(state, tmp_path / "spoilt.pth")
    with pytest.raises(ValueError, match=rf"spoilt\.pth: .*{said}"):
        load(model, tmp_path / "spoilt.pth")
    assert changed_keys(model, before) == set()


def test_a_file_that_is_not_finite_is_not_converted(tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in to_published(segmentor(1)).items()}
    not_finite(state)
    torch.save(state, tmp_path / "spoilt.pth")
    with pytest.raises(ValueError, match=rf"spoilt\.pth: {FIRST} must be finite"):
        convert_published(tmp_path / "spoilt.pth", tmp_path / "ours", num_heads=4)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("key", "shape", "heads", "said"),
    [
        (
            "query_feat.weight",
            (20, 32, 1),
            4,
            r"fit .*query_feat.weight: \(20, 32\) .*, \(20, 32, 1\)",
        ),
        ("query_feat.weight", (20,), 4, "its shapes are of no known architecture"),
        ("cls_embed.weight", (301, 32), 4, "num_classes must be from 1 to 255, got 300"),
        ("query_feat.weight", (20, 32), 7, "num_heads must divide"),
    ],
)
def test_what_is_not_converted_is_said_with_the_files_name(
    tmp_path: Path, key: str, shape: tuple[int, ...], heads: int, said: str
) -> None:
    state = to_published(segmentor(1))
    torch.save(state | {f"decode_head.{key}": torch.zeros(shape)}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=rf"(?s)odd\.pth: .*{said}"):
        convert_published(tmp_path / "odd.pth", tmp_path / "ours", num_heads=heads)


def test_a_segmentor_of_three_stages_is_of_no_known_architecture(tmp_path: Path) -> None:
    state = to_published(segmentor(1))
    lacking = "backbone.downsample4.encode_conv.weight"
    torch.save({key: v for key, v in state.items() if key != lacking}, tmp_path / "odd.pth")
    with pytest.raises(
        ValueError, match=rf"odd.pth: .*no known architecture: {lacking} is missing"
    ):
        convert_published(tmp_path / "odd.pth", tmp_path / "ours", num_heads=4)


def test_a_conversion_says_which_types_change(tmp_path: Path) -> None:
    state = to_published(segmentor(1))
    halves = {key: v.half() if v.is_floating_point() else v for key, v in state.items()}
    torch.save(halves, tmp_path / "half.pth")
    report = convert_published(tmp_path / "half.pth", tmp_path / "ours", num_heads=4)
    number = sum(value.dtype == torch.float16 for value in halves.values())
    assert f"type        float16 to float32: {number} tensors" in str(report).splitlines()
    model, _ = read_converted(tmp_path / "ours")
    assert {v.dtype for v in to_published(model).values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("kind", ["ordered", "plain", "default"])
def test_a_state_dict_in_another_kind_of_mapping_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    code = types.ModuleType("training_code")
    for base in (OrderedDict, dict):
        name = f"{base.__name__}States"
        setattr(code, name, type(name, (base,), {"__module__": "training_code"}))
    states: dict[str, Any] = {
        "ordered": vars(code)["OrderedDictStates"](w=torch.arange(3.0)),
        "plain": vars(code)["dictStates"](w=torch.arange(3.0)),
        "default": defaultdict(list, w=torch.arange(3.0)),
    }
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "training_code", code)
        content = {"state_dict": states[kind], "runs": {uuid.UUID(int=1): 1}}
        torch.save(content, tmp_path / "states.pth")
    state, placeholders = read_published(tmp_path / "states.pth")
    assert list(state) == ["w"] and torch.equal(state["w"], torch.arange(3.0))
    assert "uuid.UUID" in placeholders  # A key of any class is still a key.


@pytest.mark.parametrize("name", golden_files("classifier"))
def test_a_converted_classifier_computes_what_it_was_published_as_golden(
    tmp_path: Path, name: str
) -> None:
    golden = Golden(name)
    arguments = golden.meta["args"]
    state = {key: golden.tensor(f"param:{key}") for key in golden.names("param:")}
    torch.save({"model": state}, tmp_path / "imagenet.pth")
    convert_published(
        tmp_path / "imagenet.pth", tmp_path / "ours", num_heads=arguments["num_heads"]
    )
    model = read_converted(tmp_path / "ours")[0].double().eval()
    stated = re.search(r"T=(\d+)", golden.title)
    timesteps = arguments.get("T") or (int(stated[1]) if stated else 1)
    x = golden.tensor("in:x")
    with torch.no_grad():
        golden.assert_close(model(x.expand(timesteps, *x.shape)), "out:logits")


def imagenet_file(folder: Path, family: Any) -> Path:
    backbone = small_config().backbone
    levels = 4 if family == "e_spikeformer" else None
    backbone = type(backbone)(**{**vars(backbone), "family": family, "levels": levels})
    model = build_classifier(backbone, head_neuron(), num_classes=5, distilled=False)
    write_published(model, folder / "imagenet.pth", bare=True)
    return folder / "imagenet.pth"


def test_what_no_key_shows_is_said_and_can_be_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(imagenet_file(tmp_path, "meta_spikeformer"))
    for chosen, kind in ((None, LIF), ("lif", LIF), ("integer", IntegerLIF)):
        output = tmp_path / str(chosen)
        option = [] if chosen is None else ["--neuron", chosen]
        arguments = ["convert", path, "--output", str(output), "--heads", "4", *option]
        root.main(arguments, standalone_mode=False)
        said = capsys.readouterr().out
        assert "assumed     num_heads=4" in said and f"assumed     neuron={chosen or 'lif'}" in said
        model, _ = read_converted(output)
        neurons = {type(m) for m in model.modules() if isinstance(m, LIF | IntegerLIF)}
        assert neurons == {kind}


def test_a_segmentors_assumed_levels_are_said(tmp_path: Path) -> None:
    write_published(segmentor(1), tmp_path / "segmentor.pth")
    report = convert_published(tmp_path / "segmentor.pth", tmp_path / "ours", num_heads=4)
    assert report.assumed == [
        "num_heads=4",
        "neuron.timesteps=1",
        "neuron.levels=8",
        "compat=published",
    ]


def test_a_neuron_is_chosen_for_sdtv2_classifiers_only(tmp_path: Path) -> None:
    path = imagenet_file(tmp_path, "e_spikeformer")
    with pytest.raises(ValueError, match="neuron is chosen for SDT-V2 classifiers only, got lif"):
        convert_published(path, tmp_path / "ours", num_heads=4, neuron="lif")
