"""Inference form: BatchNorm, linear chains, residual factors and D folded into the weights.

Neurons then emit plain counts in [0, D], and every convolution behind one sees integers: what T x D
unrolling into binary spikes needs. The modules stay, so that a folded model runs the same code.
"""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..backbone import e_spikeformer, e_spikeformer_large, meta_spikeformer
from ..decoder import deformable_conv, fpn, pixel_decoder, query_decoder
from ..layers import blocks
from ..neuron.firing_rule import FiringRule
from ..neuron.integer_lif import IntegerLIF
from ..neuron.kinds import Neuron
from ..published.classifier import Classifier
from ..segmentor import QueryHead, Spike2Former, SpikeFPNSegmentor
from .fold_layers import (
    NORMS,
    RepConvForm,
    fold_norm,
    fold_rep_convs,
    fold_sequential,
    scale_input,
    scale_output,
)
from .merge_time import merge_time


@torch.no_grad()
def fold(model: nn.Module, *, rep_conv: RepConvForm = "chain") -> nn.Module:
    """Make the inference form of a trained model, as a copy.

    Args:
        model: A segmentor or classifier with its trained statistics.
        rep_conv: `chain` keeps RepConv as 1x1, depthwise 3x3, 1x1 (2 C^2 + 9 C multiply-accumulates
            a pixel), `dense` makes it one 3x3 convolution (9 C^2). RESULTS.md has both times.

    Returns:
        A copy in eval mode whose parameters take no gradient. It predicts with the last decoder
        layer only (L = 1).

    Raises:
        ValueError: Where the model has no BatchNorm to fold, as one that is folded already.
    """
    if not any(isinstance(module, NORMS) for module in model.modules()):
        raise ValueError("the model has no BatchNorm to fold: it is folded already")
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    # Whatever the layout of a training's weights: channels-last is slower here (RESULTS.md).
    folded = folded.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    for module in list(folded.modules()):
        fold_rep_convs(module, rep_conv)
    for module in list(folded.modules()):
        _fold_norms(module)
    for module in list(folded.modules()):
        for cls, fold_counts in _COUNTS.items():
            if isinstance(module, cls):
                fold_counts(module)
    for module in list(folded.modules()):
        if isinstance(module, QueryHead):
            _project_embeddings(module)
        for name in _list_owned_neurons(module):
            _reuse_input(module, name)
    if isinstance(folded, Spike2Former | SpikeFPNSegmentor):
        merge_time(folded)
    return folded.requires_grad_(False)


def _fold_norms(module: nn.Module) -> None:
    for cls, pairs in _NORM_PAIRS.items():
        if isinstance(module, cls):
            for layer, norm in pairs:
                fold_norm(module, layer, norm)
    if isinstance(module, nn.Sequential):
        fold_sequential(module)


def _list_owned_neurons(module: nn.Module) -> tuple[str, ...]:
    """Names of a module's neurons that are the only readers of their input."""
    if isinstance(module, deformable_conv.SpikeDeformableConv) and module.dw_conv is None:
        return ("mask_spike",)
    return next((names for cls, names in _OWNERS.items() if isinstance(module, cls)), ())


class _ReusingLIF(IntegerLIF):
    """A neuron that overwrites its input with spike counts, to save memory."""

    def forward(self, x: Tensor) -> Tensor:
        """Counts of a sequence, (T, B, C, ...) to the same shape."""
        return x.clamp_(0, self.levels).round_()


def _reuse_input(module: nn.Module, name: str) -> None:
    """Let a neuron overwrite its input where it is the input's only reader."""
    neuron = getattr(module, name)
    if not isinstance(neuron, IntegerLIF):
        return
    rule = neuron.rule
    kind = (rule.dynamics, rule.rounding, rule.threshold, rule.divisor)
    if kind == ("stateless", "half_even", 1.0, 1.0):
        setattr(module, name, _ReusingLIF(FiringRule(levels=rule.levels, divisor=1.0)))


def _emit_counts(neuron: nn.Module) -> float:
    """Let a neuron emit counts; returns the factor to fold into the layers behind it."""
    assert isinstance(neuron, Neuron)
    factor = 1 / neuron.divisor
    neuron.divisor = 1.0
    return factor


def _fold_readers(*pairs: tuple[str, Sequence[str]]) -> Callable[[Any], None]:
    """Make a function that folds neurons into the layers behind them in the same module."""

    def fold_counts(module: Any) -> None:
        for neuron, layers in pairs:
            if getattr(module, neuron) is None:
                continue
            factor = _emit_counts(getattr(module, neuron))
            for layer in layers:
                scale_input(getattr(module, layer), factor)

    return fold_counts


def _fold_attention(suffix: str, *readers: tuple[str, Sequence[str]]) -> Callable[[Any], None]:
    """Make a function that folds an attention's spike factors into its product's scale."""
    around = _fold_readers(*readers)

    def fold_counts(module: Any) -> None:
        around(module)
        for name in ("q", "k", "v"):
            module.scale *= _emit_counts(getattr(module, f"{name}_{suffix}"))

    return fold_counts


def _fold_deformable(module: deformable_conv.SpikeDeformableConv) -> None:
    if module.dw_conv is not None:
        _fold_readers(("dw_spike", ("dw_conv",)))(module)
    _fold_readers(("offset_spike", ("offset", "mask")))(module)
    scale_output(_last_conv(module.input_proj), _emit_counts(module.mask_spike))


def _last_conv(projection: nn.Module) -> nn.Conv2d:
    separable = isinstance(projection, blocks.SpikeSeparableConv)
    return (projection.pwconv2 if separable else projection.pwconv)[0]  # pyright: ignore


def _fold_encoder_layer(module: pixel_decoder.EncoderLayer) -> None:
    """Fold residual factors into the layers before, where those keep the channels' order."""
    layers = [
        ("gamma1", module.Conv.pwconv2[0]),
        ("gamma2", _last_conv(module.dcn.output_proj)),
    ]
    if module.ffn.compat == "corrected":
        layers.append(("gamma3", module.ffn.fc2_conv))
    for name, layer in layers:
        gamma = getattr(module, name)
        scale_output(layer, gamma)
        setattr(module, name, nn.Parameter(torch.ones_like(gamma)))


def _fold_large_block(module: e_spikeformer_large.LargeBlock) -> None:
    _fold_readers(("lif", ("rep_conv",)))(module)
    for name, layer in (
        ("layer_scale1", module.attn.proj_conv[-1]),
        ("layer_scale2", module.mlp.fc2_conv),
    ):
        gamma = getattr(module, name)
        scale_output(layer, gamma)
        setattr(module, name, nn.Parameter(torch.ones_like(gamma)))


def _fold_pixel_decoder(module: pixel_decoder.PixelDecoder) -> None:
    _fold_readers(
        ("last_feat_conv_spike", ("encoder_in_proj",)),
        ("encoder_out_proj_spike", ("encoder_out_proj",)),
        (
            "mask_feature_spike",
            ("mask_feature",) if module.pixel_head is None else ("mask_feature", "pixel_head"),
        ),
    )(module)
    _fold_lists(module.lateral_convs_spike, module.lateral_convs)
    _fold_lists(module.output_convs_spike, module.output_convs)


def _fold_lists(neurons: nn.ModuleList, layers: nn.ModuleList) -> None:
    for neuron, layer in zip(neurons, layers, strict=True):
        scale_input(layer, _emit_counts(neuron))


def _fold_fpn(module: fpn.SpikeFPN) -> None:
    _fold_lists(module.lateral_spikes, module.lateral_convs)
    _fold_lists(module.fpn_spikes, module.fpn_convs)


def _fold_unit(module: fpn._ConvUnit) -> None:
    scale_input(module[1], _emit_counts(module[0]))


def _fold_head(module: QueryHead) -> None:
    """Fold alpha, the shortcut's weight and the mask embedding's divisor."""
    embedding = module.embedding
    alpha = embedding.alpha
    factor = alpha * _emit_counts(embedding.query_spike)
    for layer in (embedding.cls_embed, embedding.mask_embed.fc1):
        scale_input(layer, factor)
    if embedding.shortcut == "conv":
        shortcut = embedding.shortcut_conv[0]
        scale_input(shortcut, alpha * _emit_counts(embedding.shortcut_spike))
        scale_output(shortcut, embedding.w.expand(shortcut.out_channels))
        embedding.w = nn.Parameter(torch.ones_like(embedding.w))
    elif embedding.shortcut == "identity":
        counts = alpha * _emit_counts(embedding.shortcut_spike)
        embedding.w = nn.Parameter(embedding.w.detach() * counts)
    mlp = embedding.mask_embed
    scale_input(mlp.fc2, mlp.alpha * _emit_counts(mlp.fc1_spike))
    scale_input(mlp.fc_out, mlp.alpha * _emit_counts(mlp.fc2_spike))
    counts = alpha * _emit_counts(embedding.mask_spike)
    scale_output(module.pixel_decoder.mask_feature, counts)
    embedding.alpha = mlp.alpha = 1.0
    module.last_only = True


def _project_embeddings(module: QueryHead) -> None:
    """Move the mask features' convolution to the queries: M (W s + b) = (M W) s + M b."""
    mask_feature = module.pixel_decoder.mask_feature
    width, inner = mask_feature.weight.shape[:2]
    assert mask_feature.bias is not None
    projection = nn.Linear(width, inner + 1, bias=False)
    weight = mask_feature.weight[:, :, 0, 0].T
    projection.weight = nn.Parameter(torch.cat((weight, mask_feature.bias[None])))
    module.mask_projection = projection
    module.reorders = False
    module.pixel_decoder.mask_feature = nn.Identity()


def _fold_classifier(module: Classifier) -> None:
    factor = _emit_counts(module.lif)
    if module.spiking_head:
        scale_input(module.head, factor)
    if module.head_kd is not None:
        scale_input(module.head_kd, factor)


_QKV = ("q_conv", "k_conv", "v_conv")
_NORM_PAIRS: dict[type[nn.Module], list[tuple[str, str]]] = {
    blocks.Downsampling: [("encode_conv", "encode_bn")],
    blocks.SeparableConv: [("pwconv1", "bn1"), ("pwconv2", "bn2")],
    blocks.ConvBlock: [("conv1", "bn1"), ("conv2", "bn2")],
    blocks.ChannelMLP: [("fc1_conv", "fc1_bn"), ("fc2_conv", "fc2_bn")],
    query_decoder.QueryMLP: [("fc1", "bn1"), ("fc2", "bn2")],
}
# Neurons that stand right behind a layer or product of their own module.
_OWNERS: dict[type[nn.Module], tuple[str, ...]] = {
    blocks.SeparableConv: ("spike2",),
    blocks.SpikeSeparableConv: ("spike2", "spike3"),
    blocks.ConvBlock: ("spike2",),
    blocks.ChannelMLP: ("fc2_spike",),
    meta_spikeformer.RepConvAttention: ("q_spike", "k_spike", "v_spike", "attn_spike"),
    e_spikeformer.WideValueAttention: ("q_spike", "k_spike", "v_spike", "attn_spike"),
    query_decoder.SpikeAttention: ("q_spike", "k_spike", "v_spike", "attn_spike"),
    query_decoder.QueryMLP: ("fc2_spike",),
    deformable_conv.SpikeDeformableConv: ("offset_spike", "mask_spike"),
}
_COUNTS: dict[type[nn.Module], Callable[[Any], None]] = {
    blocks.Downsampling: _fold_readers(("encode_spike", ("encode_conv",))),
    blocks.SeparableConv: _fold_readers(("spike1", ("pwconv1",)), ("spike2", ("dwconv",))),
    blocks.SpikeSeparableConv: _fold_readers(
        ("spike1", ("pwconv1",)), ("spike2", ("dwconv",)), ("spike3", ("pwconv2",))
    ),
    blocks.ConvBlock: _fold_readers(("spike1", ("conv1",)), ("spike2", ("conv2",))),
    blocks.ChannelMLP: _fold_readers(("fc1_spike", ("fc1_conv",)), ("fc2_spike", ("fc2_conv",))),
    meta_spikeformer.RepConvAttention: _fold_attention(
        "spike", ("head_spike", _QKV), ("attn_spike", ("proj_conv",))
    ),
    e_spikeformer.WideValueAttention: _fold_attention(
        "spike", ("head_spike", _QKV), ("attn_spike", ("proj_conv",))
    ),
    e_spikeformer_large.DenseConvBlock: _fold_readers(("lif1", ("conv1",)), ("lif2", ("conv2",))),
    e_spikeformer_large.PairAttention: _fold_attention(
        "lif", ("head_lif", _QKV), ("attn_lif", ("proj_conv",))
    ),
    e_spikeformer_large.LargeBlock: _fold_large_block,
    query_decoder.SpikeAttention: _fold_attention(
        "spike",
        *((f"{layer}_spike", (layer,)) for layer in _QKV),
        ("attn_spike", ("out_conv",)),
    ),
    query_decoder.QueryMLP: _fold_readers(("fc1_spike", ("fc1",)), ("fc2_spike", ("fc2",))),
    deformable_conv.SpikePointwiseConv: _fold_readers(("spike", ("pwconv",))),
    deformable_conv.SpikeDeformableConv: _fold_deformable,
    pixel_decoder.EncoderLayer: _fold_encoder_layer,
    pixel_decoder.PixelDecoder: _fold_pixel_decoder,
    fpn.SpikeFPN: _fold_fpn,
    fpn._ConvUnit: _fold_unit,
    fpn.SpikeFPNHead: _fold_readers(("seg_spike", ("conv_seg",))),
    QueryHead: _fold_head,
    Classifier: _fold_classifier,
}
