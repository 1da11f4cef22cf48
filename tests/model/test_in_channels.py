"""Networks of other channels than RGB."""

from dataclasses import replace

import pytest
import torch
from models import small_config

from spikeseg.model.segmentor import build_segmentor


@pytest.mark.parametrize("family", ["meta_spikeformer", "e_spikeformer"])
@pytest.mark.parametrize("channels", [1, 5])
def test_an_image_of_the_models_channels_is_labelled(family: str, channels: int) -> None:
    config = small_config()
    backbone = replace(config.backbone, family=family)
    config = replace(config, decoder="fpn", in_channels=channels, backbone=backbone)
    torch.manual_seed(0)
    images = torch.randn(2, channels, 32, 32)
    model = build_segmentor(config, images).eval()
    with torch.no_grad():
        assert model(images).logits.shape[:2] == (2, 9)
        # Every channel is seen.
        for channel in range(channels):
            changed = images.clone()
            changed[:, channel] = torch.randn(2, 32, 32) * 3
            first = model.backbone.downsample1_1
            assert not torch.equal(first(changed[None]), first(images[None]))
        with pytest.raises(ValueError, match=f"must have {channels} channels, got 3"):
            model(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("channels", [0, 17])
def test_a_number_of_channels_out_of_range_is_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"in_channels must be from 1 to 16, got {channels}"):
        replace(small_config(), in_channels=channels)
