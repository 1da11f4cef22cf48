"""Fold BatchNorms, factors and linear chains into weights and biases of layers."""

# torch types what a module holds as Tensor | Module; what it is here is asserted or known.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

from typing import Literal

import torch
from torch import Tensor, nn

from ..backbone import e_spikeformer_large
from ..layers.rep_conv import RepConv

RepConvForm = Literal["chain", "dense"]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_Layer = nn.Conv1d | nn.Conv2d | nn.Linear


def _compute_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Factor and offset that a BatchNorm applies in eval mode, (C,) each."""
    assert isinstance(norm, NORMS) and norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def scale_output(layer: _Layer, scale: Tensor | float, offset: Tensor | None = None) -> None:
    """Scale a layer's output by a factor or (C,) factors, and add (C,) offsets."""
    shape = (-1, *(1,) * (layer.weight.dim() - 1))
    # A number stays a number: as a tensor it would take torch's default type.
    factors = scale.view(shape) if isinstance(scale, Tensor) else scale
    layer.weight = nn.Parameter(layer.weight * factors)
    bias = layer.bias * scale if layer.bias is not None else None
    if offset is not None:
        bias = offset.clone() if bias is None else bias + offset
    layer.bias = None if bias is None else nn.Parameter(bias)


def scale_input(layer: nn.Module, factor: float) -> None:
    """Scale a layer's input by a factor; of a chain the input of its first layer."""
    if isinstance(layer, nn.Sequential):
        scale_input(layer[0], factor)
        return
    assert isinstance(layer, _Layer), type(layer)
    layer.weight = nn.Parameter(layer.weight * factor)


def fold_norm(module: nn.Module, layer: str, norm: str) -> None:
    """Fold a BatchNorm into the layer before it, both given by their names in a module."""
    target = getattr(module, layer)
    assert isinstance(target, _Layer)
    scale_output(target, *_compute_affine(getattr(module, norm)))
    setattr(module, norm, nn.Identity())


def fold_sequential(chain: nn.Sequential) -> None:
    """Fold every BatchNorm into the layer before it."""
    for index in range(1, len(chain)):
        if isinstance(chain[index], NORMS):
            before = chain[index - 1]
            assert isinstance(before, _Layer), type(before)
            scale_output(before, *_compute_affine(chain[index]))
            chain[index] = nn.Identity()


def fold_rep_convs(module: nn.Module, form: RepConvForm) -> None:
    """Replace chains of (RepConv or PointwisePair, BatchNorm) below a module by plain layers."""
    for name, child in list(module.named_children()):
        inner = child[0] if isinstance(child, nn.Sequential) and len(child) == 2 else child
        if isinstance(inner, RepConv):
            layers: list[nn.Module] = _merge_rep_conv(inner, form)
        elif isinstance(inner, e_spikeformer_large.PointwisePair):
            layers = [_merge_pointwise(inner)]
        else:
            continue
        if isinstance(child, nn.Sequential):
            last = layers[-1]
            assert isinstance(last, _Layer)
            scale_output(last, *_compute_affine(child[1]))
        setattr(module, name, nn.Sequential(*layers))


def _merge_rep_conv(conv: RepConv, form: RepConvForm) -> list[nn.Module]:
    """Layers that equal a RepConv in eval mode, without BatchNorms.

    Its inner BatchNorm offset also fills the border, so behind it the offset is the same at every
    place and the depthwise kernel only sums it: it moves into the last bias, and what is left has a
    border of zeros.
    """
    first, padding, (depthwise, last, norm) = conv.body
    scale, offset = _compute_affine(padding.bn)
    into = first.weight[:, :, 0, 0] * scale[:, None]
    kernel = depthwise.weight[:, 0]
    out = last.weight[:, :, 0, 0]
    bias = out @ (kernel.sum((1, 2)) * offset)
    channels = into.shape[1]
    if form == "dense":
        dense = nn.Conv2d(channels, out.shape[0], 3, padding=1)
        dense.weight = nn.Parameter(torch.einsum("om,mxy,mi->oixy", out, kernel, into))
        dense.bias = nn.Parameter(bias)
        layers = [dense]
    else:
        one = nn.Conv2d(channels, into.shape[0], 1, bias=False)
        one.weight = nn.Parameter(into[:, :, None, None])
        three = nn.Conv2d(
            into.shape[0], into.shape[0], 3, padding=1, groups=into.shape[0], bias=False
        )
        three.weight = nn.Parameter(kernel[:, None].clone())
        two = nn.Conv2d(into.shape[0], out.shape[0], 1)
        two.weight = nn.Parameter(out[:, :, None, None].clone())
        two.bias = nn.Parameter(bias)
        layers = [one, three, two]
    scale_output(layers[-1], *_compute_affine(norm))
    return list(layers)


def _merge_pointwise(pair: e_spikeformer_large.PointwisePair) -> nn.Conv1d:
    """Merge two pointwise layers: C^2 instead of 2 C hidden multiply-accumulates a token."""
    (first, norm1), (second, norm2) = pair.conv1, pair.conv2
    scale, offset = _compute_affine(norm1)
    out = second.weight[:, :, 0]
    layer = nn.Conv1d(first.in_channels, second.out_channels, 1)
    layer.weight = nn.Parameter((out @ (first.weight[:, :, 0] * scale[:, None]))[:, :, None])
    layer.bias = nn.Parameter(out @ offset)
    scale_output(layer, *_compute_affine(norm2))
    return layer
