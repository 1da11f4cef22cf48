"""Spike-driven mask embedding (SDME): queries to class logits and mask embeddings."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..config import NeuronConfig, QueryDecoderConfig
from ..layers.blocks import NeuronFactory
from ..neuron.kinds import build_neuron


class SpikeMLP(nn.Module):
    """Three linear layers on spikes scaled by alpha.

    Args:
        width: E in and out.
        alpha: Factor on the spikes.
        neuron: Makes a neuron.
    """

    def __init__(self, width: int, *, alpha: float, neuron: NeuronFactory) -> None:
        super().__init__()
        self.alpha = alpha
        self.fc1 = nn.Linear(width, width, bias=False)
        self.fc1_spike = neuron()
        self.fc2 = nn.Linear(width, width, bias=False)
        self.fc2_spike = neuron()
        self.fc_out = nn.Linear(width, width)
        nn.init.trunc_normal_(self.fc_out.weight, std=0.02)
        nn.init.zeros_(self.fc_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(T, ..., E) of scaled spikes to (T, ..., E), real-valued."""
        x = self.alpha * self.fc1_spike(self.fc1(x))
        x = self.alpha * self.fc2_spike(self.fc2(x))
        return self.fc_out(x)


class MaskEmbedding(nn.Module):
    """Class logits and spiking mask embeddings of every query, with a shortcut over queries.

    The sigmoid before the first neurons makes them sign tests whatever D (ARCHITECTURE section 5);
    their threshold is 1 whatever the configuration's, since a sigmoid never reaches half of 2.

    Args:
        config: Sizes and alpha.
        neuron: The neuron.
        num_classes: K without "no object".
    """

    def __init__(
        self, config: QueryDecoderConfig, neuron: NeuronConfig, *, num_classes: int
    ) -> None:
        super().__init__()
        make = partial(build_neuron, neuron)
        make_sign = partial(build_neuron, replace(neuron, threshold=1.0))
        self.shortcut = config.shortcut
        self.query_spike, self.mask_spike = make_sign(), make()
        self.alpha = self.query_spike.divisor if config.alpha is None else config.alpha
        self.cls_embed = nn.Linear(config.width, num_classes + 1)
        nn.init.trunc_normal_(self.cls_embed.weight, std=0.02)
        nn.init.zeros_(self.cls_embed.bias)
        self.mask_embed = SpikeMLP(config.width, alpha=self.alpha, neuron=make)
        if self.shortcut in ("conv", "identity"):
            self.shortcut_spike = make_sign()
        if self.shortcut == "conv":
            self.shortcut_conv = nn.Sequential(
                nn.Conv1d(config.num_queries, config.num_queries, 1, bias=False),
                nn.BatchNorm1d(config.num_queries),
            )
        if self.shortcut != "none":
            self.w = nn.Parameter(torch.ones(1))

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Embed.

        Args:
            queries: (T, L, B, Q, E), real-valued.

        Returns:
            Class logits (L, B, Q, K+1), mean over T; mask embeddings (T, L, B, Q, E), spikes
            times alpha.
        """
        z = torch.sigmoid(queries)
        spikes = self.alpha * self.query_spike(z)
        class_logits = self.cls_embed(spikes).mean(0)
        embedding = self.mask_embed(spikes)
        if self.shortcut != "none":
            embedding = embedding + self.w * self._carry_shortcut(queries, z)
        return class_logits, self.alpha * self.mask_spike(embedding)

    def _carry_shortcut(self, queries: Tensor, z: Tensor) -> Tensor:
        """Output of the shortcut branch, (T, L, B, Q, E)."""
        if self.shortcut == "membrane":
            return queries
        spikes = self.alpha * self.shortcut_spike(z)
        if self.shortcut == "identity":
            return spikes
        return self.shortcut_conv(spikes.flatten(0, 2)).unflatten(0, queries.shape[:3])
