"""Reading golden files: parameters, inputs, cotangents and tolerances, all from the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeseg.model.config import BackboneConfig, ModelConfig, NeuronConfig, QueryDecoderConfig
from spikeseg.model.weights import published_name


class Golden:
    """One golden file.

    Args:
        path: The npz file.
        dtype: Type to run in; float64 has the tighter tolerance.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float64) -> None:
        self.arrays = dict(np.load(path))
        self.meta = json.loads(str(self.arrays["meta"])) if "meta" in self.arrays else {}
        self.dtype = dtype

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).to(self.dtype)

    def names(self, prefix: str) -> list[str]:
        return [key.removeprefix(prefix) for key in self.arrays if key.startswith(prefix)]

    def inputs(self, name: str) -> list[Tensor]:
        return [self.tensor(f"in:{n}") for n in self.names("in:") if n.partition(".")[0] == name]

    def load(self, module: nn.Module, prefix: str = "") -> nn.Module:
        """Load the file's parameters under published names; all must fit, none may be left."""
        ours = {published_name(key): key for key in module.state_dict()}
        given = {n.removeprefix(prefix): f"param:{n}" for n in self.names("param:")}
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
        """Compare with a stored array within the file's stated tolerance."""
        expected = self.tensor(key)
        size = max(1.0, float(expected.abs().max())) if scale is None else max(1.0, scale)
        gradient = key.startswith(("gin:", "gparam:"))
        if self.dtype == torch.float64:
            rtol, atol = 1e-5, 2e-6 * size
        else:
            rtol, atol = (1e-3 if gradient else 1e-4), 1e-5 * size * (10 if gradient else 1)
        torch.testing.assert_close(
            actual.detach().reshape(expected.shape),
            expected,
            rtol=rtol,
            atol=atol,
            msg=lambda m: f"{key}: {m}",
        )

    def check(
        self, module: nn.Module, outputs: dict[str, Tensor], inputs: dict[str, Tensor]
    ) -> None:
        """Outputs, then gradients of the sum of outputs times their cotangents."""
        scales = self.meta.get("abs_max", {})
        for name, value in outputs.items():
            self.assert_close(value, f"out:{name}", scales.get(name))
        pulled = [
            (value * self.tensor(f"cot:{name}").reshape(value.shape)).sum()
            for name, value in outputs.items()
            if f"cot:{name}" in self.arrays
        ]
        if not pulled:
            return
        torch.stack(pulled).sum().backward()
        for name, value in inputs.items():
            if self.arrays.get(f"gin:{name}", np.empty(0)).size:
                assert value.grad is not None, name
                self.assert_close(value.grad, f"gin:{name}")
        parameters = {published_name(k): v for k, v in module.named_parameters()}
        for name in self.names("gparam:"):
            if self.arrays[f"gparam:{name}"].size:
                gradient = parameters[name].grad
                assert gradient is not None, name
                self.assert_close(gradient, f"gparam:{name}")


def entries(shared: Path) -> list[dict[str, Any]]:
    """The index of the golden folder."""
    return json.loads((shared / "reference" / "golden" / "index.json").read_text())


def segmentor_config(meta: dict[str, Any], levels: int) -> ModelConfig:
    """Our configuration of a golden whole-model file."""
    backbone, head = meta["backbone"], meta["head"]
    plain = (
        json.loads(
            head.replace("'", '"')
            .replace("True", "true")
            .replace("None", "null")
            .replace("False", "false")
        )
        if isinstance(head, str)
        else head
    )
    pixel = plain["pixel_decoder"]["encoder"]
    decoder = plain["transformer_decoder"]
    third = "sdtv3" in meta["cls"]
    return ModelConfig(
        num_classes=plain["num_classes"],
        neuron=NeuronConfig(timesteps=backbone["T"], levels=levels, normalization="levels"),
        backbone=BackboneConfig(
            family="e_spikeformer" if third else "meta_spikeformer",
            embed_dims=tuple(backbone["embed_dim"]),
            num_heads=backbone["num_heads"],
            mlp_ratio=backbone["mlp_ratios"],
            levels=4 if third else None,
        ),
        decoder="query",
        query=QueryDecoderConfig(
            width=plain["feat_channels"],
            num_queries=plain["num_queries"],
            num_heads=decoder["layer_cfg"]["self_attn_cfg"]["num_heads"],
            num_groups=pixel["layer_cfg"]["self_attn_cfg"]["group"],
            num_encoder_layers=pixel["num_layers"],
            encoder_hidden=pixel["layer_cfg"]["ffn_cfg"]["feedforward_channels"],
            num_decoder_layers=decoder["num_layers"],
            decoder_hidden=decoder["layer_cfg"]["ffn_cfg"]["feedforward_channels"],
        ),
        compat="published",
    )
