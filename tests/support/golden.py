"""Read the golden files: recorded inputs, weights, outputs and gradients of the released code.

Files are found by what `index.json` says they hold, and every size comes from there, so that
another set made the same way can be put in the same place.
"""

import functools
import inspect
import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeseg.model.config import (
    BackboneConfig,
    LossConfig,
    ModelConfig,
    NeuronConfig,
    QueryDecoderConfig,
)
from spikeseg.model.published.keys import to_published_name

# Below this distance to a rounding or window boundary, float32 in another order may flip a spike.
FLIP_MARGIN = 3e-6

_GRADIENT = re.compile(r"(gin|gparam):")

# Start of `cls` or `what` in the index -> kind of file; the first that fits decides.
_KINDS = {
    "every spiking neuron variant": "neurons",
    "sdtv2.Spiking_vit": "backbone",
    "sdtv3.Spiking_vit": "backbone",
    "sdtv2.": "block",
    "sdtv3.": "block",
    "SDT-V2 classification MS_Block": "block",
    "SDT-V2 classification": "classifier",
    "SDT-V3 classification": "classifier",
    "SDT-V3 large": "classifier",
    "dcnv3_core": "sampling",
    "SinePositionalEncoding": "sine",
    "SNN_core.SepConv_Spike": "encoder",
    "ops_dcnv3.DCNv3": "encoder",
    "mmcv_spike.transformer.MS_MLP": "encoder",
    "DCNDetrTransformerEncoderLayer": "encoder",
    "mmcv_spike.transformer.": "decoder",
    "DetrTransformerDecoderLayer": "decoder",
    "SNN_core.MLP": "decoder",
    "DCNTransformerEncoderPixelDecoder": "pixel_decoder",
    "QFPN": "fpn",
    "EncoderDecoder": "segmentor",
    "Hungarian matching": "matching",
    "whole batch without any": "matching_empty",
    "losses of the whole": "losses",
    "one training step": "train_step",
    "D=": "levels",
    "written from the config": "preprocess",
}


def folder() -> Path:
    """Where the golden files should be."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("SPIKESEG_SHARED", beside)) / "reference" / "golden"


def kind_of(entry: dict[str, Any]) -> str | None:
    """What a file of the index holds; None where no test knows it."""
    meta = entry["meta"]
    title = meta.get("cls") or meta.get("what", "")
    return next((kind for start, kind in _KINDS.items() if title.startswith(start)), None)


def golden_files(kind: str) -> list[Any]:
    """Names of the files of one kind, as parameters of a test; one that skips where none is."""
    if not (folder() / "index.json").is_file():
        reason = f"no golden files in {folder()}: set SPIKESEG_SHARED to the folder that holds them"
        return [pytest.param("absent", marks=pytest.mark.skip(reason=reason))]
    names = [entry["file"] for entry in entries() if kind_of(entry) == kind]
    if not names:
        reason = f"this set of goldens has no file of kind {kind!r}"
        return [pytest.param("absent", marks=pytest.mark.skip(reason=reason))]
    return names


def in_both_types(kind: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test `(name, dtype)` for every file of a kind, in float64 and float32.

    Where float32 disagrees and the file's own margins say that a spike may flip, the float64 run
    decides, as the files' README asks; a warning says so.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(name: str, dtype: torch.dtype) -> None:
            try:
                test(name, dtype)
            except AssertionError as error:
                # A window's edge excuses gradients alone; a rounding's edge everything after it.
                of = str(error)
                keys = ("margin_round", "margin_grad") if _GRADIENT.match(of) else ("margin_round",)
                if dtype == torch.float64 or margin(name, keys) > FLIP_MARGIN:
                    raise
                test(name, torch.float64)
                warnings.warn(f"{name}: a spike flips in float32; float64 agrees", stacklevel=2)

        run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
        types = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
        return types(pytest.mark.parametrize("name", golden_files(kind))(run))

    return decorate


def margin(name: str, keys: Sequence[str]) -> float:
    """Smallest distance of a neuron's input to a boundary that a file, or its base, states.

    Args:
        name: The file.
        keys: `margin_round` for boundaries of rounding, `margin_grad` for those of the window.
    """
    metas = [Golden(name).meta, Golden(base_of(name)).meta]
    stated = [meta.get(key) for meta in metas for key in keys]
    return min((value for value in stated if value is not None), default=1.0)


def base_of(name: str) -> str:
    """The whole model's file that a file of losses, levels or steps goes with."""
    stem = name.removesuffix(".npz")
    known = [e["file"] for e in entries() if kind_of(e) == "segmentor"]
    fits = [file for file in known if stem.startswith(file.removesuffix(".npz"))]
    return max(fits, key=len, default=name)


class Golden:
    """One golden file.

    Args:
        name: The npz file's name.
        dtype: Type to run in; float64 has the tighter tolerance.
    """

    def __init__(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        self.arrays = dict(np.load(folder() / name))
        self.meta = json.loads(str(self.arrays["meta"])) if "meta" in self.arrays else {}
        self.dtype = dtype

    @property
    def title(self) -> str:
        """The published class, or what the file holds."""
        return self.meta.get("cls") or self.meta["what"]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).to(self.dtype)

    def labels(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).long()

    def leaf(self, key: str) -> Tensor:
        return self.tensor(key).requires_grad_()

    def names(self, prefix: str) -> list[str]:
        return [key.removeprefix(prefix) for key in self.arrays if key.startswith(prefix)]

    def leaves(self, name: str) -> list[Tensor]:
        return [self.leaf(f"in:{n}") for n in self.names("in:") if n.partition(".")[0] == name]

    def load(self, module: nn.Module, *, bare: bool = False) -> nn.Module:
        """Load the file's parameters under published names; all must fit, none may be left."""
        ours = {to_published_name(key, bare=bare): key for key in module.state_dict()}
        given = {n: f"param:{n}" for n in self.names("param:")}
        missing, extra = set(ours) - set(given), set(given) - set(ours)
        assert not missing and not extra, (sorted(missing)[:4], sorted(extra)[:4])
        counters = {"num_batches_tracked"}
        module.load_state_dict(
            {
                ours[name]: torch.from_numpy(self.arrays[key])
                if name.rpartition(".")[2] in counters
                else self.tensor(key)
                for name, key in given.items()
            }
        )
        return module.to(self.dtype).train(bool(self.meta.get("train", False)))

    def assert_close(self, actual: Tensor, key: str, scale: float | None = None) -> None:
        """Compare with a stored array within the files' stated tolerance."""
        expected = self.tensor(key)
        size = max(1.0, float(expected.abs().max())) if scale is None else max(1.0, scale)
        gradient = key.startswith(("gin:", "gparam:"))
        if self.dtype == torch.float64:
            rtol, atol = 1e-5, 2e-6 * size
        else:
            rtol, atol = (1e-3 if gradient else 1e-4), 1e-5 * size * (10 if gradient else 1)
        torch.testing.assert_close(
            actual.detach().to(self.dtype).reshape(expected.shape),
            expected,
            rtol=rtol,
            atol=atol,
            msg=lambda m: f"{key}: {m}",
        )

    def check(
        self,
        module: nn.Module,
        outputs: dict[str, Tensor],
        inputs: dict[str, Tensor],
        *,
        bare: bool = False,
    ) -> None:
        """Outputs, then gradients of the sum of outputs times their cotangents, then buffers."""
        scales = self.meta.get("abs_max", {})
        assert {n for n in self.names("out:") if f"cot:{n}" in self.arrays} <= set(outputs)
        for name, value in outputs.items():
            self.assert_close(value, f"out:{name}", scales.get(name))
        pulled = [
            (value * self.tensor(f"cot:{name}").reshape(value.shape)).sum()
            for name, value in outputs.items()
            if f"cot:{name}" in self.arrays
        ]
        torch.stack(pulled).sum().backward()
        for name, value in inputs.items():
            if self.arrays[f"gin:{name}"].size:
                assert value.grad is not None, name
                self.assert_close(value.grad, f"gin:{name}")
        parameters = {to_published_name(k, bare=bare): v for k, v in module.named_parameters()}
        for name in self.names("gparam:"):
            gradient = parameters[name].grad
            if self.arrays[f"gparam:{name}"].size:
                assert gradient is not None, name
                self.assert_close(gradient, f"gparam:{name}")
            else:
                assert gradient is None or not gradient.any(), name
        self.check_buffers(module)

    def check_buffers(self, module: nn.Module) -> None:
        """Buffers after a pass in train mode."""
        buffers = {to_published_name(k): v for k, v in module.named_buffers()}
        for name in self.names("buf_after:"):
            if not name.endswith("num_batches_tracked"):  # The files hold those of before.
                self.assert_close(buffers[name], f"buf_after:{name}")


def entries() -> list[dict[str, Any]]:
    """The index of the golden folder."""
    return json.loads((folder() / "index.json").read_text())


def sizes(args: dict[str, Any], **more: Any) -> QueryDecoderConfig:
    """Sizes of the decoders from a published module's arguments."""
    cross = args.get("self_attn_cfg", args)
    ffn = args.get("ffn_cfg", args.get("ffn", args))
    hidden = ffn.get("feedforward_channels", 1)
    return QueryDecoderConfig(
        width=cross.get("embed_dims", cross.get("channels")),
        num_heads=cross.get("num_heads", 1),
        num_groups=cross.get("group", 1),
        encoder_hidden=hidden,
        decoder_hidden=hidden,
        **more,
    )


def backbone_config(args: dict[str, Any], *, third: bool, levels: int | None) -> BackboneConfig:
    """A backbone's configuration from the published constructor's arguments."""
    return BackboneConfig(
        family="e_spikeformer" if third else "meta_spikeformer",
        embed_dims=tuple(args["embed_dim"]),
        num_heads=args["num_heads"],
        mlp_ratio=args["mlp_ratios"],
        levels=levels,
    )


def segmentor_config(meta: dict[str, Any], levels: int) -> ModelConfig:
    """Our configuration of a golden whole-model file."""
    backbone, head = meta["backbone"], meta["head"]
    pixel, decoder = head["pixel_decoder"]["encoder"], head["transformer_decoder"]
    third = "sdtv3" in meta["cls"]
    return ModelConfig(
        num_classes=head["num_classes"],
        neuron=NeuronConfig(timesteps=backbone["T"], levels=levels, normalization="levels"),
        backbone=backbone_config(backbone, third=third, levels=4 if third else None),
        decoder="query",
        query=QueryDecoderConfig(
            width=head["feat_channels"],
            num_queries=head["num_queries"],
            num_heads=decoder["layer_cfg"]["self_attn_cfg"]["num_heads"],
            num_groups=pixel["layer_cfg"]["self_attn_cfg"]["group"],
            num_encoder_layers=pixel["num_layers"],
            encoder_hidden=pixel["layer_cfg"]["ffn_cfg"]["feedforward_channels"],
            num_decoder_layers=decoder["num_layers"],
            decoder_hidden=decoder["layer_cfg"]["ffn_cfg"]["feedforward_channels"],
        ),
        compat="published",
    )


def loss_config(meta: dict[str, Any]) -> LossConfig:
    """Weights of losses and costs that a file states; the published ones where it does not."""
    cost, loss = meta.get("cost_weights", {}), meta.get("loss_weights", {})
    head = meta.get("head", {})
    for term in ("cls", "mask", "dice"):
        stated = head.get(f"loss_{term}", {}).get("loss_weight")
        if stated is not None:
            loss = {{"mask": "focal"}.get(term, term): stated, **loss}
    balance = head.get("loss_cls", {}).get("class_weight", [0.1])[-1]
    return LossConfig(
        class_weight=loss.get("cls", 1.0),
        mask_weight=loss.get("focal", 20.0),
        dice_weight=loss.get("dice", 1.0),
        no_object_weight=meta.get("no_object_weight", balance),
        class_cost=cost.get("cls", 1.0),
        mask_cost=cost.get("focal", 20.0),
        dice_cost=cost.get("dice", 1.0),
        ignore_label=meta.get("ignore", 255),
    )
