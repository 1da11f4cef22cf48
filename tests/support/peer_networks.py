"""Networks and images that are compared with other counters, the same on every machine."""

import dataclasses

import torch
from torch import Tensor, nn

from spikeseg.model.segmentor import build_segmentor
from spikeseg.platform.config.recipes import load_experiment

# Name -> recipe, D. With one level every spike is binary, as the unrolled form's are.
NETWORKS = {
    "shapes_tiny": ("shapes_tiny", 4),
    "shapes_tiny_binary": ("shapes_tiny", 1),
    "camvid_tiny": ("camvid_tiny", 4),
    "camvid_tiny_binary": ("camvid_tiny", 1),
}


def build_network(name: str) -> tuple[nn.Module, Tensor]:
    """A network with BatchNorms that have seen images, in eval mode, and two images."""
    recipe, levels = NETWORKS[name]
    config = load_experiment(recipe).config.model
    neuron = dataclasses.replace(config.neuron, levels=levels)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 64)
    model = build_segmentor(dataclasses.replace(config, neuron=neuron), images).train()
    with torch.no_grad():
        for _ in range(4):
            model(images)
    return model.eval(), images
