"""Query decoder: queries attend to the pixel decoder's levels, then to each other."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from ..config import Compat, NeuronConfig, QueryDecoderConfig
from ..layers.blocks import AttentionOrder, NeuronFactory, fire_after, linear_attention, over_time
from ..neuron.kinds import build_neuron


def _build_projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(width, width, 1), nn.BatchNorm1d(width))


class SpikeAttention(nn.Module):
    """Attention between token sets, without softmax, scaled by the full width's root.

    Args:
        width: E.
        num_heads: Heads; divides E.
        neuron: Makes a neuron.
    """

    merged = False

    def __init__(self, width: int, *, num_heads: int, neuron: NeuronFactory) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = width**-0.5
        self.order: AttentionOrder = "cheaper"
        self.q_conv_spike, self.k_conv_spike, self.v_conv_spike = neuron(), neuron(), neuron()
        self.q_conv, self.k_conv, self.v_conv = (_build_projection(width) for _ in range(3))
        self.q_spike, self.k_spike, self.v_spike = neuron(), neuron(), neuron()
        self.attn_spike = neuron()
        self.out_conv = _build_projection(width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend.

        Where time is merged, N and Q are two axes, of which one may be 1: (T * B, E, H, W).

        Args:
            query: (T, B, E, Q), real-valued.
            key: (T, B, E, N).
            value: (T, B, E, N).

        Returns:
            (T, B, E, Q).
        """
        q = fire_after(self.q_conv, self.q_spike, self.q_conv_spike(query))
        k = fire_after(self.k_conv, self.k_spike, self.k_conv_spike(key))
        v = fire_after(self.v_conv, self.v_spike, self.v_conv_spike(value))
        if self.merged:
            q, k, v = q.flatten(-2), k.flatten(-2), v.flatten(-2)
        y = linear_attention(q, k, v, num_heads=self.num_heads, scale=self.scale, order=self.order)
        if self.merged:
            y = y.unflatten(-1, query.shape[-2:])
        return over_time(self.out_conv, self.attn_spike(y))


class Attention(nn.Module):
    """Attention below the key `attn` of the published checkpoints.

    Args:
        config: Sizes.
        neuron: The neuron.
        role: What it is part of, for the scope of normalization.
    """

    def __init__(
        self,
        config: QueryDecoderConfig,
        neuron: NeuronConfig,
        *,
        role: Literal["plain", "cross_attention"],
    ) -> None:
        super().__init__()
        make = partial(build_neuron, neuron, role=role)
        self.attn = SpikeAttention(config.width, num_heads=config.num_heads, neuron=make)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `SpikeAttention`."""
        return self.attn(query, key, value)


class QueryMLP(nn.Module):
    """MLP over the queries; the released code reshapes (Q, E) to (E, Q) and back without permute.

    Args:
        width: E.
        hidden: Hidden channels.
        neuron: Makes a neuron.
        compat: `published` keeps those reshapes.
    """

    merged = False

    def __init__(self, width: int, *, hidden: int, neuron: NeuronFactory, compat: Compat) -> None:
        super().__init__()
        self.compat = compat
        self.fc1_spike = neuron()
        self.fc1 = nn.Conv1d(width, hidden, 1)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.fc2_spike = neuron()
        self.fc2 = nn.Conv1d(hidden, width, 1)
        self.bn2 = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, E, Q) to the same shape; (T * B, E, Q, 1) where time is merged."""
        E, Q = x.shape[1:3] if self.merged else x.shape[2:]
        x = self.fc1_spike(x)
        if self.compat == "published":
            tokens = x.squeeze(-1) if self.merged else x
            x = tokens.transpose(-1, -2).contiguous().view(x.shape)
        y = fire_after(self.bn1, self.fc2_spike, over_time(self.fc1, x))
        y = over_time(self.bn2, over_time(self.fc2, y))
        if self.compat == "published":
            tokens = y.squeeze(-1) if self.merged else y
            tokens = tokens.contiguous().view(*tokens.shape[:-2], Q, E).transpose(-1, -2)
            y = tokens.unsqueeze(-1) if self.merged else tokens
        return y


class QueryDecoderLayer(nn.Module):
    """Cross-attention, self-attention and MLP, a residual around each.

    Args:
        config: Sizes.
        neuron: The neuron.
        compat: Published quirks or corrected.
    """

    def __init__(self, config: QueryDecoderConfig, neuron: NeuronConfig, *, compat: Compat) -> None:
        super().__init__()
        self.cross_attn = Attention(config, neuron, role="cross_attention")
        self.self_attn = Attention(config, neuron, role="plain")
        self.ffn = QueryMLP(
            config.width,
            hidden=config.decoder_hidden,
            neuron=partial(build_neuron, neuron),
            compat=compat,
        )

    def forward(
        self, query: Tensor, memory: Tensor, query_position: Tensor, position: Tensor
    ) -> Tensor:
        """One layer.

        Args:
            query: (T, B, E, Q).
            memory: (T, B, E, N), one level of the pixel decoder.
            query_position: (E, Q).
            position: (E, N).

        Returns:
            (T, B, E, Q).
        """
        query = query + self.cross_attn(query + query_position, memory + position, memory)
        placed = query + query_position
        query = query + self.self_attn(placed, placed, query)
        return query + self.ffn(query)


class QueryDecoder(nn.Module):
    """Stack of layers; layer i attends to level i mod 3.

    Args:
        config: Sizes.
        neuron: The neuron.
        compat: Published quirks or corrected.
    """

    def __init__(self, config: QueryDecoderConfig, neuron: NeuronConfig, *, compat: Compat) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            QueryDecoderLayer(config, neuron, compat=compat)
            for _ in range(config.num_decoder_layers)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        query: Tensor,
        levels: Sequence[Tensor],
        query_position: Tensor,
        positions: Sequence[Tensor],
    ) -> list[Tensor]:
        """Decode.

        Args:
            query: (T, B, E, Q).
            levels: (T, B, E, N) per level.
            query_position: (E, Q).
            positions: (E, N) per level.

        Returns:
            The queries before the first layer and after each, (T, B, E, Q).
        """
        collected = [query]
        for index, layer in enumerate(self.layers):
            level = index % len(levels)
            query = layer(query, levels[level], query_position, positions[level])
            collected.append(query)
        return collected
