"""Every published tensor is reproduced: outputs, gradients, buffers, losses, matching, maps."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import Golden, entries, segmentor_config
from torch import Tensor, nn

from spikeseg.model.accounting.firing import FiringMonitor
from spikeseg.model.backbone.blocks import (
    ChannelMLP,
    ConvBlock,
    Downsampling,
    SeparableConv,
    SpikeSeparableConv,
)
from spikeseg.model.backbone.e_spikeformer import ESpikeformer, WideValueAttention, WideValueBlock
from spikeseg.model.backbone.meta_spikeformer import (
    MetaSpikeformer,
    RepConvAttention,
    RepConvBlock,
)
from spikeseg.model.backbone.rep_conv import BatchNormAndPad, RepConv
from spikeseg.model.config import BackboneConfig, LossConfig, NeuronConfig, QueryDecoderConfig
from spikeseg.model.decoder.deformable_conv import SpikeDeformableConv, deformable_sample
from spikeseg.model.decoder.fpn import SpikeFPN, SpikeFPNHead
from spikeseg.model.decoder.mask_embedding import SpikeMLP
from spikeseg.model.decoder.pixel_decoder import EncoderLayer, EncoderMLP, PixelDecoder
from spikeseg.model.decoder.query_decoder import QueryDecoderLayer, QueryMLP, SpikeAttention
from spikeseg.model.decoder.sine_position import sine_position
from spikeseg.model.loss.criterion import SetCriterion
from spikeseg.model.loss.matcher import image_targets, match, matching_costs
from spikeseg.model.neuron.integer_lif import IntegerLIF, integer_lif
from spikeseg.model.neuron.lif import LIF
from spikeseg.model.postprocess import label_map, semantic_logits
from spikeseg.model.prediction import MaskPrediction
from spikeseg.model.segmentor import Spike2Former
from spikeseg.model.weights import published_name

DTYPES = [torch.float64, torch.float32]
EIGHT = partial(IntegerLIF, levels=8, divisor=8)
FOUR = partial(IntegerLIF, levels=4, divisor=4)


def sizes(**values: Any) -> QueryDecoderConfig:
    return QueryDecoderConfig(**{"width": 32, "num_heads": 4, "num_groups": 8, **values})


def block(cls: str, a: dict[str, Any]) -> nn.Module:
    """Our module of a published class and its constructor arguments."""
    mixers = {
        "sdtv2": partial(SeparableConv, neuron=EIGHT),
        "sdtv3": partial(SpikeSeparableConv, neuron=FOUR, kernel_size=7),
    }
    if cls == "sdtv2.BNAndPadLayer":
        return BatchNormAndPad(a["num_features"])
    if cls == "sdtv2.RepConv":
        return RepConv(a["in_channel"], a["out_channel"])
    if cls == "sdtv2.SepConv":
        return SeparableConv(a["dim"], neuron=EIGHT)
    if cls in ("sdtv2.MS_ConvBlock", "sdtv3.MS_ConvBlock_spike_SepConv"):
        family = cls[:5]
        neuron = EIGHT if family == "sdtv2" else FOUR
        return ConvBlock(
            a["dim"], mixer=mixers[family](a["dim"]), neuron=neuron, mlp_ratio=a["mlp_ratio"]
        )
    if cls in ("sdtv2.MS_MLP", "sdtv3.MS_MLP"):
        return ChannelMLP(
            a["in_features"],
            hidden=a["hidden_features"],
            neuron=EIGHT if cls[:5] == "sdtv2" else FOUR,
        )
    if cls == "sdtv2.MS_Attention_RepConv_qkv_id":
        return RepConvAttention(a["dim"], num_heads=a["num_heads"], neuron=EIGHT)
    if cls == "sdtv2.MS_Block":
        return RepConvBlock(
            a["dim"], num_heads=a["num_heads"], mlp_ratio=a["mlp_ratio"], neuron=EIGHT
        )
    if cls == "sdtv2.MS_DownSampling":
        return Downsampling(
            a["in_channels"],
            a["embed_dims"],
            kernel_size=a["kernel_size"],
            stride=a["stride"],
            neuron=None if a["first_layer"] else EIGHT,
        )
    if cls == "sdtv3.SepConv_Spike":
        return SpikeSeparableConv(a["dim"], neuron=FOUR, kernel_size=a.get("kernel_size", 7))
    if cls == "sdtv3.MS_Attention_linear":
        return WideValueAttention(
            a["dim"], num_heads=a["num_heads"], neuron=FOUR, value_ratio=a["lamda_ratio"]
        )
    if cls == "sdtv3.MS_Block_Spike_SepConv":
        return WideValueBlock(
            a["dim"], num_heads=a["num_heads"], mlp_ratio=a["mlp_ratio"], neuron=FOUR
        )
    if cls.startswith("SDT-V2 classification MS_Block"):
        return RepConvBlock(
            a["dim"],
            num_heads=a["num_heads"],
            mlp_ratio=a["mlp_ratio"],
            neuron=LIF,
            attention_neuron=partial(LIF, threshold=0.5),
            scale=0.125,
        )
    raise LookupError(cls)


def has_block(cls: str) -> bool:
    return (
        cls.split(" in train mode")[0].split(" train mode")[0].startswith("sdtv")
        and "Spiking_vit" not in cls
    ) or cls.startswith("SDT-V2 classification MS_Block")


def find(shared: Path, name: str) -> dict[str, Any]:
    found = [entry for entry in entries(shared) if entry["file"] == name]
    if not found:
        pytest.skip(f"{name} is not in this set of goldens")
    return found[0]


def path(shared: Path, name: str) -> Path:
    return shared / "reference" / "golden" / name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_blocks_golden(shared_folder: Path, dtype: torch.dtype) -> None:
    checked = 0
    for entry in entries(shared_folder):
        cls = entry["meta"].get("cls", "")
        if not has_block(cls):
            continue
        golden = Golden(path(shared_folder, entry["file"]), dtype)
        module = golden.load(
            block(cls.split(" in train mode")[0].split(" train mode")[0], golden.meta["args"])
        )
        x = golden.tensor("in:x").requires_grad_()
        y = module(x)
        golden.check(module, {"y": y}, {"x": x})
        for name in golden.names("buf_after:"):
            if name.endswith("num_batches_tracked"):
                continue  # The files hold the counters of before the pass.
            golden.assert_close(dict(module.named_buffers())[name].to(dtype), f"buf_after:{name}")
        checked += 1
    assert checked >= 18


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["sdtv2_backbone.npz", "sdtv3_backbone.npz"])
def test_backbones_golden(shared_folder: Path, name: str, dtype: torch.dtype) -> None:
    find(shared_folder, name)
    golden = Golden(path(shared_folder, name), dtype)
    a = golden.meta["args"]
    third = name.startswith("sdtv3")
    config = BackboneConfig(
        family="e_spikeformer" if third else "meta_spikeformer",
        embed_dims=tuple(a["embed_dim"]),
        num_heads=a["num_heads"],
        mlp_ratio=a["mlp_ratios"],
        levels=4 if third else None,
    )
    neuron = NeuronConfig(timesteps=a["T"], levels=8, normalization="levels")
    module = golden.load((ESpikeformer if third else MetaSpikeformer)(config, neuron))
    x = golden.tensor("in:x").requires_grad_()
    features = module(x.expand(a["T"], *x.shape))
    golden.check(module, {f"x{i + 1}": f for i, f in enumerate(features)}, {"x": x})


def test_neurons_golden(shared_folder: Path) -> None:
    golden = Golden(path(shared_folder, "neurons.npz"))
    variants = {
        "q_ifnode_d8": {"levels": 8, "divisor": 8},
        "multispike_norm_d4": {"levels": 4, "divisor": 4},
        "multispike_norm4_d4": {"levels": 4, "divisor": 4},
        "multispike_4_unnormalised": {"levels": 4, "divisor": 1},
        "sdtv3_multispike_d4": {"levels": 4, "divisor": 4},
        "sdtv3_multispike_d4_norm1": {"levels": 4, "divisor": 1},
        "sdtv3_multispike_d8": {"levels": 8, "divisor": 8},
        "sdtv3_large_multispike": {
            "levels": 4,
            "divisor": 4,
            "rounding": "half_up",
            "window": "open",
        },
    }
    # The open, half-up variant with D = 8 of the unused third backbone.
    variants["sdtv3_multispike_d8"] |= open_window(golden, "sdtv3_multispike_d8")
    for name, settings in variants.items():
        x = golden.tensor("in:x").requires_grad_()
        y = integer_lif(x[None], **settings)
        (y[0] * golden.tensor("cot")).sum().backward()
        assert torch.equal(y[0], golden.tensor(f"{name}/out")), name
        assert torch.equal(x.grad, golden.tensor(f"{name}/gin")), name
    # Two calls without a reset are a sequence of two steps without leak.
    first, second = golden.tensor("in:x"), golden.tensor("q_ifnode_d8_stateful/in2")
    x = torch.stack([first, second]).requires_grad_()
    y = integer_lif(x, levels=8, divisor=8, dynamics="temporal", decay=1.0)
    (y[1] * golden.tensor("cot")).sum().backward()
    for step, key in enumerate(("out1", "out2")):
        golden.assert_close(y[step], f"q_ifnode_d8_stateful/{key}")
    assert x.grad is not None
    golden.assert_close(x.grad[0], "q_ifnode_d8_stateful/gin1_of_out2")
    golden.assert_close(x.grad[1], "q_ifnode_d8_stateful/gin2_of_out2")


def open_window(golden: Golden, name: str) -> dict[str, str]:
    """Whether a variant's gradient leaves out the window's ends, as its own arrays show."""
    edge = golden.arrays["in:x"] == 0
    closed = bool(np.any(golden.arrays[f"{name}/gin"][edge])) if edge.any() else True
    return {} if closed else {"rounding": "half_up", "window": "open"}


@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_binary_lif_golden(shared_folder: Path, threshold: float) -> None:
    golden = Golden(path(shared_folder, "neurons.npz"))
    x = golden.tensor("lif/in").requires_grad_()
    y = LIF(threshold=threshold)(x)
    (y * golden.tensor("lif/cot")).sum().backward()
    name = f"lif_tau2_vth{threshold:g}"
    assert torch.equal(y, golden.tensor(f"{name}/out"))
    assert x.grad is not None
    golden.assert_close(x.grad, f"{name}/gin")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_head_modules_golden(shared_folder: Path, dtype: torch.dtype) -> None:
    modules: dict[str, nn.Module] = {
        "head_esc.npz": SpikeSeparableConv(32, neuron=EIGHT, kernel_size=5),
        "head_dcnv3.npz": SpikeDeformableConv(32, groups=8, neuron=EIGHT, compat="published"),
        "head_encoder_mlp.npz": EncoderMLP(32, hidden=48, neuron=EIGHT, compat="published"),
        "head_encoder_layer.npz": EncoderLayer(
            sizes(encoder_hidden=48), neuron=EIGHT, compat="published"
        ),
    }
    for name, module in modules.items():
        golden = Golden(path(shared_folder, name), dtype)
        golden.load(module)
        x = golden.tensor("in:x").requires_grad_()
        golden.check(
            module, {"y": module(x.permute(0, 1, 4, 2, 3)).permute(0, 1, 3, 4, 2)}, {"x": x}
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_decoder_modules_golden(shared_folder: Path, dtype: torch.dtype) -> None:
    golden = Golden(path(shared_folder, "head_attention.npz"), dtype)
    attention = golden.load(SpikeAttention(32, num_heads=4, neuron=EIGHT))
    given = {n: golden.tensor(f"in:{n}").requires_grad_() for n in ("query", "key", "value")}
    y = attention(*(value.transpose(-1, -2) for value in given.values())).transpose(-1, -2)
    golden.arrays.pop("out:aux_scores")
    golden.check(attention, {"y": y}, given)

    golden = Golden(path(shared_folder, "head_decoder_ffn.npz"), dtype)
    mlp = golden.load(QueryMLP(32, hidden=48, neuron=EIGHT, compat="published"))
    x = golden.tensor("in:x").requires_grad_()
    golden.check(mlp, {"y": mlp(x.transpose(-1, -2)).transpose(-1, -2)}, {"x": x})

    golden = Golden(path(shared_folder, "head_decoder_layer.npz"), dtype)
    neuron = NeuronConfig(timesteps=1, levels=8, normalization="levels")
    layer = golden.load(QueryDecoderLayer(sizes(decoder_hidden=48), neuron, compat="published"))
    given = {
        n: golden.tensor(f"in:{n}").requires_grad_()
        for n in ("query", "key", "query_pos", "key_pos")
    }
    y = layer(*(given[n].transpose(-1, -2) for n in ("query", "key", "query_pos", "key_pos")))
    golden.check(layer, {"y": y.transpose(-1, -2)}, given)

    golden = Golden(path(shared_folder, "head_mask_embed_mlp.npz"), dtype)
    mlp = golden.load(SpikeMLP(32, alpha=4.0, neuron=EIGHT))
    x = golden.tensor("in:x").requires_grad_()
    golden.check(mlp, {"y": mlp(x)}, {"x": x})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_deformable_sampling_golden(shared_folder: Path, dtype: torch.dtype) -> None:
    golden = Golden(path(shared_folder, "dcnv3_core.npz"), dtype)
    given = {n: golden.tensor(f"in:{n}").requires_grad_() for n in ("x", "offset", "mask")}
    y = deformable_sample(given["x"].permute(0, 3, 1, 2), given["offset"], given["mask"])
    golden.check(nn.Module(), {"y": y.permute(0, 2, 3, 1)}, given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pixel_decoder_golden(shared_folder: Path, dtype: torch.dtype) -> None:
    golden = Golden(path(shared_folder, "pixel_decoder.npz"), dtype)
    neuron = NeuronConfig(timesteps=1, levels=8, normalization="levels")
    features = [f.requires_grad_() for f in golden.inputs("feats")]
    decoder = PixelDecoder(
        [f.shape[2] for f in features],
        sizes(num_encoder_layers=2, encoder_hidden=48),
        neuron,
        compat="published",
        num_classes=7,
    )
    golden.load(decoder)
    mask_features, levels, _ = decoder(features)
    golden.arrays.pop("out:memory")
    outputs = {"mask_feature": mask_features, **{f"ms{i}": level for i, level in enumerate(levels)}}
    memory = []
    decoder.encoder_out_proj_spike.register_forward_hook(lambda m, i, o: memory.append(o))
    decoder(features)
    # The cotangent of the spiked memory is part of the file's loss.
    outputs["memory"] = memory[0]
    decoder.zero_grad()
    mask_features, levels, _ = decoder(features)
    outputs = {
        "mask_feature": mask_features,
        **{f"ms{i}": level for i, level in enumerate(levels)},
        "memory": memory[-1],
    }
    golden.arrays["out:memory"] = memory[-1].detach().numpy()
    golden.check(decoder, outputs, {f"feats.{i}": f for i, f in enumerate(features)})


def test_sine_position_golden(shared_folder: Path) -> None:
    golden = Golden(path(shared_folder, "sine_positional_encoding.npz"), torch.float32)
    for name in golden.names("out:"):
        parts = dict((p[0], int(p[1:])) for p in name.replace("nf", "f").split("_"))
        position = sine_position(parts["h"], parts["w"], num_features=parts["f"])
        expected = golden.tensor(f"out:{name}")
        if expected.shape[-1] != parts["w"]:
            step = parts["w"] // expected.shape[-1]
            position = position[:, ::step, ::step]
        torch.testing.assert_close(position.expand_as(expected), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fpn_golden(shared_folder: Path, dtype: torch.dtype) -> None:
    golden = Golden(path(shared_folder, "fpn_head.npz"), dtype)
    meta = golden.meta
    model = nn.ModuleDict(
        {
            "neck": SpikeFPN(meta["in_channels"], width=meta["channels"], neuron=FOUR),
            "decode_head": SpikeFPNHead(
                meta["channels"], num_levels=4, num_classes=meta["classes"], neuron=FOUR
            ),
        }
    )
    golden.load(model)
    features = [f.requires_grad_() for f in golden.inputs("feats")]
    pyramid = model["neck"]([f[None] for f in features])
    outputs = {f"aux_p{i}": p for i, p in enumerate(pyramid)}
    outputs["logits"] = model["decode_head"](pyramid)
    golden.check(model, outputs, {f"feats.{i}": f for i, f in enumerate(features)})


def whole(
    shared: Path, name: str, dtype: torch.dtype, levels: int = 8
) -> tuple[Golden, Spike2Former]:
    find(shared, name)
    golden = Golden(path(shared, name), dtype)
    model = Spike2Former(segmentor_config(golden.meta, levels))
    golden.load(model)
    return golden, model


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["segmentor_sdtv2.npz", "segmentor_sdtv3.npz"])
def test_segmentors_golden(shared_folder: Path, name: str, dtype: torch.dtype) -> None:
    golden, model = whole(shared_folder, name, dtype)
    x = golden.tensor("in:x").requires_grad_()
    prediction = model(x)
    size = (x.shape[-2], x.shape[-1])
    logits = semantic_logits(prediction, size)
    golden.assert_close(logits, "out:seg_logits")
    found = label_map(logits, size)
    assert torch.equal(found, torch.from_numpy(golden.arrays["out:seg_map"]).long())
    outputs = {"all_cls_scores": prediction.class_logits, "all_mask_preds": prediction.mask_logits}
    golden.check(model, outputs, {"x": x})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_four_levels_golden(shared_folder: Path, dtype: torch.dtype) -> None:
    base, model = whole(shared_folder, "segmentor_sdtv2.npz", dtype, levels=4)
    golden = Golden(path(shared_folder, "segmentor_sdtv2_d4.npz"), dtype)
    x = base.tensor("in:x").requires_grad_()
    prediction = model(x)
    golden.assert_close(prediction.class_logits, "out:all_cls_scores")
    golden.assert_close(prediction.mask_logits[-1], "out:mask_preds_last")
    size = (x.shape[-2], x.shape[-1])
    found = label_map(semantic_logits(prediction, size), size)
    assert torch.equal(found, torch.from_numpy(golden.arrays["out:seg_map"]).long())
    (prediction.mask_logits * base.tensor("cot:all_mask_preds")).sum().backward()
    assert x.grad is not None
    golden.assert_close(x.grad, "gin:x")


@pytest.mark.parametrize("name", ["sdtv2", "sdtv3"])
def test_firing_statistics_golden(shared_folder: Path, name: str) -> None:
    golden, model = whole(shared_folder, f"segmentor_{name}.npz", torch.float64)
    expected = json.loads(path(shared_folder, f"segmentor_{name}_firing.json").read_text())
    with FiringMonitor(model) as monitor, torch.no_grad():
        model(golden.tensor("in:x"))
    renamed = {
        "decode_head.decoder_out_spike": "decode_head.embedding.query_spike",
        "decode_head.shortcut_conv_spike": "decode_head.embedding.shortcut_spike",
        "decode_head.mask_embed_spike": "decode_head.embedding.mask_spike",
        "decode_head.mask_embed.spike1": "decode_head.embedding.mask_embed.fc1_spike",
        "decode_head.mask_embed.spike2": "decode_head.embedding.mask_embed.fc2_spike",
    }
    rows = {row.name: row for row in monitor.rows()}
    assert len(rows) == len(expected)
    for key, entry in expected.items():
        row = rows[renamed.get(key, key)]
        assert row.rate == pytest.approx(entry["mean_integer_spike"], rel=1e-9), key
        assert 1 - row.dead == pytest.approx(entry["nonzero_fraction"], rel=1e-9), key
        assert row.levels == entry["D"], key


def layer_names(count: int) -> list[str]:
    return [*(f"d{i}." for i in range(count - 1)), ""]


def assert_losses(golden: Golden, losses: dict[str, Tensor], config: LossConfig) -> None:
    weights = {"cls": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}
    ours = {"cls": losses["class"], "mask": losses["mask"], "dice": losses["dice"]}
    for term, values in ours.items():
        for value, prefix in zip(values, layer_names(len(values)), strict=True):
            expected = golden.tensor(f"out:{prefix}loss_{term}").reshape(())
            torch.testing.assert_close(
                (weights[term] * value).to(golden.dtype), expected, rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize(
    "name", ["matching_losses.npz", "matching_losses_one_image_without_gt.npz"]
)
def test_matching_and_losses_golden(shared_folder: Path, name: str) -> None:
    find(shared_folder, name)
    golden = Golden(path(shared_folder, name), torch.float32)
    config = LossConfig()
    criterion = SetCriterion(config, golden.meta["classes"], torch.ones(golden.meta["classes"]))
    classes = golden.tensor("in:cls_scores").requires_grad_()
    masks = golden.tensor("in:mask_preds").requires_grad_()
    target = torch.from_numpy(golden.arrays["in:gt"]).long()
    prediction = MaskPrediction(classes, masks, None)
    count = criterion.count(target)
    assert_losses(golden, criterion.layer_losses(prediction, target, count), config)
    total = torch.stack(list(criterion(prediction, target, count).values())).sum()
    torch.testing.assert_close(
        total.detach(), golden.tensor("out:total").reshape(()), rtol=1e-4, atol=1e-5
    )
    total.backward()
    for name_, leaf in (("cls_scores", classes), ("mask_preds", masks)):
        assert leaf.grad is not None
        golden.assert_close(leaf.grad, f"gin:{name_}")
    assert_matches(golden, classes.detach(), masks.detach(), target, config)


def assert_matches(
    golden: Golden, classes: Tensor, masks: Tensor, target: Tensor, config: LossConfig
) -> None:
    L, B, Q = classes.shape[:3]
    for b in range(B):
        found = image_targets(target[b], ignore_label=255)
        if f"gtlabels:b{b}" not in golden.arrays:
            assert len(found.labels) == 0
            continue
        assert found.labels.tolist() == golden.arrays[f"gtlabels:b{b}"].tolist()
        small = nn.functional.interpolate(found.masks[None].float(), size=masks.shape[-2:])[0]
        costs = matching_costs(
            classes[L - 1, b][None].float(),
            masks[L - 1, b][None].flatten(2).float(),
            found.labels,
            small.flatten(1),
        )
        weights = (config.class_cost, config.mask_cost, config.dice_cost)
        for weight, cost, term in zip(weights, costs, ("cls", "focal", "dice"), strict=True):
            expected = torch.from_numpy(golden.arrays[f"cost_{term}:l{L - 1}_b{b}"])
            torch.testing.assert_close(weight * cost[0], expected, rtol=1e-4, atol=1e-5)
        pairs = match(classes[:, b], masks[:, b], found._replace(masks=small.bool()), config)
        for layer, (queries, chosen) in enumerate(pairs):
            expected = torch.zeros(Q, dtype=torch.int64)
            expected[queries] = chosen + 1
            assert expected.tolist() == golden.arrays[f"match:l{layer}_b{b}"].tolist()


def test_losses_without_any_label_golden(shared_folder: Path) -> None:
    golden = Golden(path(shared_folder, "matching_losses_no_gt_at_all.npz"), torch.float32)
    classes, masks = golden.tensor("in:cls_scores"), golden.tensor("in:mask_preds")
    criterion = SetCriterion(LossConfig(), 7, torch.ones(7))
    target = torch.full((2, 16, 16), 255)
    losses = criterion.layer_losses(MaskPrediction(classes, masks, None), target, 2.0)
    assert_losses(golden, losses, LossConfig())


@pytest.mark.parametrize("name", ["sdtv2", "sdtv3"])
def test_whole_model_losses_golden(shared_folder: Path, name: str) -> None:
    base, model = whole(shared_folder, f"segmentor_{name}.npz", torch.float64)
    golden = Golden(path(shared_folder, f"segmentor_{name}_losses.npz"))
    target = torch.from_numpy(golden.arrays["in:gt"]).long()
    criterion = SetCriterion(LossConfig(), 7, torch.ones(7)).double()
    x = base.tensor("in:x").requires_grad_()
    prediction = model(x)
    count = criterion.count(target)
    assert_losses(golden, criterion.layer_losses(prediction, target, count), LossConfig())
    assert_matches(
        golden,
        prediction.class_logits.detach(),
        prediction.mask_logits.detach(),
        target,
        LossConfig(),
    )
    torch.stack(list(criterion(prediction, target, count).values())).sum().backward()
    parameters = {published_name(k): v for k, v in model.named_parameters()}
    assert x.grad is not None
    # The reference takes losses in float32, ours in float64: their gradients differ by rounding.
    for key, value in [
        ("gin:x", x.grad),
        *((f"gparam:{n}", parameters[n].grad) for n in golden.names("gparam:")),
    ]:
        expected = golden.tensor(key)
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            value, expected, rtol=1e-3, atol=1e-4 * scale, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("name", ["sdtv2", "sdtv3"])
def test_train_step_golden(shared_folder: Path, name: str) -> None:
    base, model = whole(shared_folder, f"segmentor_{name}.npz", torch.float64)
    golden = Golden(path(shared_folder, f"segmentor_{name}_train_step.npz"))
    target = torch.from_numpy(
        np.load(path(shared_folder, f"segmentor_{name}_losses.npz"))["in:gt"]
    ).long()
    criterion = SetCriterion(LossConfig(), 7, torch.ones(7)).double()
    model.train()
    undecayed = ("query_embed", "query_feat", "level_embed")
    groups = [
        {
            "params": [p],
            "lr": 1e-4 if key.startswith("backbone") else 1e-3,
            "weight_decay": 0.0 if any(u in key for u in undecayed) else 0.005,
        }
        for key, p in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups)
    prediction = model(base.tensor("in:x"))
    count = criterion.count(target)
    assert_losses(golden, criterion.layer_losses(prediction, target, count), LossConfig())
    torch.stack(list(criterion(prediction, target, count).values())).sum().backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), golden.meta["clip"])
    torch.testing.assert_close(
        norm, golden.tensor("out:grad_norm_before_clip").reshape(()), rtol=1e-4, atol=0
    )
    parameters = {published_name(k): v for k, v in model.named_parameters()}
    for key in golden.names("grad_clipped:"):
        expected = golden.tensor(f"grad_clipped:{key}")
        torch.testing.assert_close(
            parameters[key].grad, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    optimizer.step()
    for key in golden.names("after:"):
        torch.testing.assert_close(
            parameters[key].detach(), golden.tensor(f"after:{key}"), rtol=0, atol=2e-6
        )
    buffers = {published_name(k): v for k, v in model.named_buffers()}
    for key in golden.names("buf_after:"):
        golden.assert_close(buffers[key].double(), f"buf_after:{key}")
