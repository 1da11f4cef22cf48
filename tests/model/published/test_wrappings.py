"""Weights inside of what training tools wrap around a model are found, and this is said."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from spikeseg.model.published.weights import read_published
from spikeseg.model.published.wrappings import find_state_dict, unwrap_keys

PLAIN = {"backbone.a.weight": torch.ones(2), "decode_head.b.bias": torch.zeros(1)}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in PLAIN.items()}


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        (prefixed("module."), ["module."]),
        (prefixed("_orig_mod."), ["_orig_mod."]),
        (prefixed("model."), ["model."]),
        (prefixed("module._orig_mod.model."), ["module.", "_orig_mod.", "model."]),
        (prefixed("model.net."), ["model.", "net."]),
        ({**prefixed("module."), "n_averaged": torch.tensor(3)}, ["module.", "n_averaged"]),
        (
            {"backbone._orig_mod.a.weight": torch.ones(2), "decode_head.b.bias": torch.zeros(1)},
            ["_orig_mod."],
        ),
        (PLAIN, []),
    ],
    ids=["DDP", "compile", "Lightning", "all", "fields", "average", "a part", "plain"],
)
def test_keys_are_those_of_the_model_inside(state: dict[str, Tensor], taken: list[str]) -> None:
    unwrapped, parts = unwrap_keys(state)
    assert unwrapped.keys() == PLAIN.keys()
    assert all((unwrapped[key] == value).all() for key, value in PLAIN.items())
    assert parts == taken


def test_two_tensors_never_get_one_key() -> None:
    state = {"a.weight": torch.ones(1), "module.a.weight": torch.zeros(1)}
    assert unwrap_keys(state) == (state, [])


def test_a_field_that_not_all_keys_stand_in_is_a_part_of_the_model() -> None:
    state = {"model.a.weight": torch.ones(1), "b.weight": torch.zeros(1)}
    assert unwrap_keys(state) == (state, [])


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": PLAIN, "epoch": 3},
        {"model_state_dict": PLAIN, "optimizer": {}},
        {"state_dict": {"model": PLAIN}},
        {"model": {}, "state_dict": PLAIN},
        PLAIN,
    ],
)
def test_the_state_dict_is_found_below_its_key(content: dict) -> None:
    assert find_state_dict(content) is PLAIN


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_wrapped_file_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        safetensors.torch.save_file(state, path)
    read, _ = read_published(path)
    model.load_state_dict(read)
    assert f"x{suffix}: taken off its keys, what wrapped the model: module." in caplog.text
