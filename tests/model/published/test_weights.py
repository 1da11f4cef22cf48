"""Checkpoints: keys map both ways one to one, what does not fit is said, no code in a file runs."""

import argparse
import csv
import dataclasses
import importlib
import os
import pickle
import zipfile
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikeseg.jobs.cli import root
from spikeseg.model.config import (
    BackboneConfig,
    FPNConfig,
    LargeBackboneConfig,
    ModelConfig,
    QueryDecoderConfig,
)
from spikeseg.model.published import sizes as published
from spikeseg.model.published.architecture import build_recognized, recognize
from spikeseg.model.published.classifier import build_classifier
from spikeseg.model.published.weights import (
    convert_published,
    load_backbone,
    load_published,
    load_weights,
    read_converted,
    read_published,
    require_published,
    to_published,
    write_published,
)
from spikeseg.model.segmentor import build_uncalibrated_segmentor


def tiny(
    family: Any = "meta_spikeformer", decoder: Any = "query", num_classes: int = 3
) -> ModelConfig:
    return ModelConfig(
        num_classes=num_classes,
        neuron=published.head_neuron(),
        backbone=BackboneConfig(
            family=family,
            embed_dims=(4, 8, 8, 16),
            num_heads=2,
            depths=(2, 1),
            mlp_ratio=2,
            levels=4 if family == "e_spikeformer" else None,
        ),
        decoder=decoder,
        query=QueryDecoderConfig(
            width=16,
            num_queries=5,
            num_heads=2,
            num_groups=4,
            num_encoder_layers=2,
            encoder_hidden=24,
            num_decoder_layers=3,
            decoder_hidden=20,
        ),
        fpn=FPNConfig(width=12, levels=4),
        compat="published",
    )


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("family", ["sdtv2", "sdtv3"])
def test_every_official_key_maps_both_ways_one_to_one(shared_folder: Path, family: str) -> None:
    with (shared_folder / "reference" / f"state_dict_{family}_ade20k.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    state = {
        row["key"]: torch.empty(
            literal_eval(row["shape"]), dtype=getattr(torch, row["dtype"]), device="meta"
        )
        for row in rows
    }
    recognized = recognize(state, num_heads=8)
    assert recognized.architecture == getattr(published, f"spike2former_{family}")()
    with torch.device("meta"):
        model = build_recognized(recognized)
    back = to_published(model)
    assert set(back) == set(state)
    assert all(
        back[key].shape == state[key].shape and back[key].dtype == state[key].dtype for key in back
    )
    assert len({id(value) for value in back.values()}) == len(rows)


@pytest.mark.parametrize("decoder", ["query", "fpn"])
@pytest.mark.parametrize("family", ["meta_spikeformer", "e_spikeformer"])
def test_a_segmentor_survives_the_way_to_ours_and_back(
    tmp_path: Path, family: str, decoder: str
) -> None:
    model = build_uncalibrated_segmentor(tiny(family, decoder))
    write_published(model, tmp_path / "published.pth")
    report = convert_published(tmp_path / "published.pth", tmp_path / "ours", num_heads=2)
    assert report.complete and len(report.matched) == len(model.state_dict())
    ours, recognized = read_converted(tmp_path / "ours")
    expected = tiny(family, decoder)
    unused = {"query": QueryDecoderConfig()} if decoder == "fpn" else {"fpn": FPNConfig()}
    assert recognized.architecture == dataclasses.replace(expected, **unused)
    assert equal(ours.state_dict(), model.state_dict())
    write_published(ours, tmp_path / "back.pth")
    assert equal(
        read_published(tmp_path / "back.pth")[0], read_published(tmp_path / "published.pth")[0]
    )


CLASSIFIERS: dict[str, Callable[[], BackboneConfig | LargeBackboneConfig]] = {
    "sdtv2": lambda: tiny().backbone,
    "sdtv3": lambda: tiny("e_spikeformer").backbone,
    "large": lambda: LargeBackboneConfig(
        embed_dims=(4, 8, 16), num_heads=2, depth=2, mlp_ratio=2, pair_before_attention=True
    ),
}


@pytest.mark.parametrize("distilled", [False, True], ids=["plain", "kd"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_survives_the_way_to_ours_and_back(
    tmp_path: Path, name: str, distilled: bool
) -> None:
    model = build_classifier(
        CLASSIFIERS[name](), published.head_neuron(), num_classes=5, distilled=distilled
    )
    write_published(model, tmp_path / "published.pth", bare=True)
    given = read_published(tmp_path / "published.pth")[0]
    assert "downsample1_1.encode_conv.weight" in given and "head.weight" in given
    convert_published(tmp_path / "published.pth", tmp_path / "ours", num_heads=2)
    ours, recognized = read_converted(tmp_path / "ours")
    assert recognized.is_classifier and recognized.distilled == distilled
    assert equal(to_published(ours, bare=True), given)


def test_the_command_converts_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_uncalibrated_segmentor(tiny())
    write_published(model, tmp_path / "published.pth")
    arguments = ["convert", str(tmp_path / "published.pth"), "--output", str(tmp_path / "ours")]
    root.main([*arguments, "--heads", "2"], standalone_mode=False)
    assert "0 missing, 0 unexpected, 0 of another shape" in capsys.readouterr().out
    arguments = ["convert", str(tmp_path / "ours"), "--output", str(tmp_path / "back.pth")]
    root.main(arguments, standalone_mode=False)
    assert equal(read_published(tmp_path / "back.pth")[0], to_published(model))
    with pytest.raises(ValueError, match="exists already"):
        root.main(arguments, standalone_mode=False)


@pytest.mark.parametrize("container", ["model", "state_dict", None])
@pytest.mark.parametrize("family", ["meta_spikeformer", "e_spikeformer"])
def test_an_imagenet_checkpoint_starts_a_segmentors_backbone(
    tmp_path: Path, family: str, container: str | None
) -> None:
    backbone = tiny(family).backbone
    classifier = build_classifier(backbone, published.head_neuron(), num_classes=5, distilled=True)
    state = to_published(classifier, bare=True)
    torch.save({container: state} if container else state, tmp_path / "imagenet.pth")
    model = build_uncalibrated_segmentor(tiny(family))
    report = load_backbone(model, tmp_path / "imagenet.pth")
    assert set(report.unexpected) == {
        "head.weight",
        "head.bias",
        "head_kd.weight",
        "head_kd.bias",
    }
    assert all(key.startswith("decode_head.") for key in report.missing)
    parts = {"backbone": model.backbone, "classifier": classifier.backbone}
    states = {name: part.state_dict() for name, part in parts.items()}
    assert equal(states["backbone"], states["classifier"])


def test_a_backbone_of_another_size_is_refused_with_both_shapes(tmp_path: Path) -> None:
    wide = BackboneConfig(
        family="meta_spikeformer",
        embed_dims=(4, 8, 16, 16),
        num_heads=2,
        depths=(2, 1),
        mlp_ratio=2,
    )
    other = build_classifier(wide, published.head_neuron(), num_classes=5, distilled=False)
    write_published(other, tmp_path / "imagenet.pth", bare=True)
    with pytest.raises(ValueError, match=r"downsample3.encode_conv.weight is \(8,.*\(16,"):
        load_backbone(build_uncalibrated_segmentor(tiny()), tmp_path / "imagenet.pth")


def test_another_number_of_classes_is_said_in_numbers(tmp_path: Path) -> None:
    write_published(build_uncalibrated_segmentor(tiny(num_classes=150)), tmp_path / "ade20k.pth")
    with pytest.raises(ValueError, match="num_classes is 19 in the model and 150 in the weights"):
        load_weights(build_uncalibrated_segmentor(tiny(num_classes=19)), tmp_path / "ade20k.pth")


def test_the_report_names_every_kind_of_key() -> None:
    model = build_uncalibrated_segmentor(tiny())
    state = to_published(model)
    gone, bent = "decode_head.w", "decode_head.cls_embed.bias"
    del state[gone]
    state |= {bent: torch.zeros(9), "decode_head.stranger": torch.zeros(1)}
    report = load_published(model, state, placeholders=["a.B"])
    assert report.missing == [gone]
    assert report.unexpected == ["decode_head.stranger"]
    assert report.mismatched == [(bent, (4,), (9,))]
    text = str(report)
    for part in (gone, bent, "decode_head.stranger", "a.B", "(4,)", "(9,)"):
        assert part in text


class _Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class _Evaluates:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


def test_code_in_a_hostile_file_never_runs(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    content = {
        "state_dict": to_published(build_uncalibrated_segmentor(tiny())),
        "message_hub": _Bomb(f"touch {victim}"),
        "args": argparse.Namespace(lr=1.0),
        "more": [_Evaluates(f"open({str(victim)!r}, 'w')")],
    }
    torch.save(content, tmp_path / "hostile.pth")
    state, placeholders = read_published(tmp_path / "hostile.pth")
    assert not victim.exists()
    # Pickle's second protocol says `__builtin__` for `builtins`.
    assert set(placeholders) == {"posix.system", "__builtin__.eval", "argparse.Namespace"}
    assert equal(state, content["state_dict"])
    report = convert_published(tmp_path / "hostile.pth", tmp_path / "ours", num_heads=2)
    assert "posix.system" in str(report) and not victim.exists()
    # The bomb is real: a plain unpickler would have run it.
    pickle.loads(pickle.dumps(content["message_hub"]))
    assert victim.exists()


def test_a_hostile_file_cannot_change_what_rebuilds_tensors(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3), "args": argparse.Namespace(lr=1.0)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    # BUILD with slots sets attributes of what is on the stack: here of torch's own function.
    poison = b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\0\0\0__defaults__)s\x86b0."
    with zipfile.ZipFile(tmp_path / "hostile.pth", "w") as archive:
        for name, data in parts.items():
            pickled = name.endswith("data.pkl")
            archive.writestr(name, data[:-1] + poison if pickled else data)
    rebuild = importlib.import_module("torch._utils")._rebuild_tensor_v2
    before = rebuild.__defaults__
    with pytest.raises(ValueError, match=r"hostile.pth: its pickle cannot be read safely"):
        read_published(tmp_path / "hostile.pth")
    assert rebuild.__defaults__ == before
    assert torch.equal(read_published(tmp_path / "plain.pth")[0]["w"], torch.ones(3))


def test_views_of_one_storage_stay_views(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    state = {"a": whole[:2], "b": whole[2:], "args": argparse.Namespace()}
    torch.save(state, tmp_path / "views.pth")
    tensors, _ = read_published(tmp_path / "views.pth")
    assert torch.equal(torch.cat((tensors["a"], tensors["b"])), whole)
    places = {tensors[key].untyped_storage().data_ptr() for key in ("a", "b")}
    assert len(places) == 1


def test_tensors_of_a_type_without_a_reader_cost_no_others(tmp_path: Path) -> None:
    state = {
        "good": torch.ones(3),
        "complex": torch.tensor([1 + 2j]),
        "newer": nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), requires_grad=False),
        "args": argparse.Namespace(),
    }
    torch.save(state, tmp_path / "types.pth")
    tensors, placeholders = read_published(tmp_path / "types.pth")
    assert equal(tensors, {key: state[key] for key in ("good", "complex")})
    assert "torch._utils._rebuild_tensor_v3" in placeholders


@pytest.mark.parametrize("change", ["cut", "flipped", "byte", "safetensors"])
def test_damage_of_a_file_with_classes_is_one_sentence(tmp_path: Path, change: str) -> None:
    path = tmp_path / f"damaged.{'safetensors' if change == 'safetensors' else 'pth'}"
    torch.save({"w": torch.ones(300), "args": argparse.Namespace(lr=1.0)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if change == "flipped":
        data = (tmp_path / "good.pth").read_bytes()
        at = data.index(torch.ones(8).numpy().tobytes())
        path.write_bytes(data[:at] + b"!" + data[at + 1 :])
    elif change == "cut":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data[:-40] if name.endswith("data.pkl") else data)
    else:
        path.write_bytes(b"\x80")
    with pytest.raises(ValueError, match=path.name):
        read_published(path)


def test_a_model_that_published_keys_cannot_hold_is_refused_or_told(tmp_path: Path) -> None:
    config = tiny()
    assert require_published(build_uncalibrated_segmentor(config)) == []
    query = dataclasses.replace(config.query, shortcut="none")
    with pytest.raises(ValueError, match="published checkpoint of this model"):
        require_published(build_uncalibrated_segmentor(dataclasses.replace(config, query=query)))
    query = dataclasses.replace(config.query, pyramid="dense")
    with pytest.raises(ValueError, match="the published format has only depthwise"):
        require_published(build_uncalibrated_segmentor(dataclasses.replace(config, query=query)))
    neuron = dataclasses.replace(config.neuron, timesteps=2, levels=4)
    query = dataclasses.replace(config.query, pixel_head=True)
    ours = dataclasses.replace(config, neuron=neuron, query=query, compat="corrected")
    assert require_published(build_uncalibrated_segmentor(ours)) == [
        "neuron.timesteps=2",
        "neuron.levels=4",
        "query.pixel_head=True",
        "compat=corrected",
    ]


def test_a_hostile_state_dict_holds_no_tensors(tmp_path: Path) -> None:
    torch.save({"state_dict": {"decode_head.w": _Bomb("false")}}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_published(tmp_path / "hostile.pth")


def test_a_damaged_or_foreign_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_published(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text.pth"):
        read_published(tmp_path / "text.pth")
    write_published(build_uncalibrated_segmentor(tiny()), tmp_path / "good.pth")
    whole = (tmp_path / "good.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.pth"):
        read_published(tmp_path / "cut.pth")
    with zipfile.ZipFile(tmp_path / "empty.pth", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(ValueError, match=r"empty.pth"):
        read_published(tmp_path / "empty.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(ValueError, match="no known architecture"):
        convert_published(tmp_path / "linear.pth", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
