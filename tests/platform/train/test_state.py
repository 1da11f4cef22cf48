"""A training's state goes into a checkpoint and comes back whole, or is refused."""

import copy
from pathlib import Path

import pytest
import torch
from recorded_training import small
from tiny import pack_shapes

from spikeseg.datasets.packed.reader import PackedDataset
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.train.state import Progress, TrainingState


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def build_state(data: Path, **trainer: object) -> TrainingState:
    config = small(data, **trainer)
    dataset = PackedDataset.open(str(data))
    return TrainingState(config, dataset, workers=1, device=torch.device("cpu"))


def test_the_gradient_scaler_goes_on_where_it_was(data: Path) -> None:
    first, second = build_state(data), build_state(data)
    for state in (first, second):
        # On a CPU there is none: what an fp16 training on a GPU has.
        state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 64.0, "_growth_tracker": 7})
    content = copy.deepcopy(first.state_dict())
    second.load_state_dict(content)
    assert second.scaler.state_dict() == first.scaler.state_dict()
    assert second.scaler.get_scale() == 64.0


def test_a_checkpoint_without_a_scaler_leaves_that_of_this_training(data: Path) -> None:
    state = build_state(data)
    content = copy.deepcopy(state.state_dict())
    assert content["state"]["scaler"] == {}
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    state.load_state_dict(content)
    assert state.scaler.get_scale() == 1024.0


def test_other_data_is_refused_with_both_digests(data: Path) -> None:
    state = build_state(data)
    content = copy.deepcopy(state.state_dict())
    content["state"]["data_digest"] = "0" * 64
    before = copy.deepcopy(state.model.state_dict())
    content["model"] = {key: value + 1 for key, value in content["model"].items()}
    with pytest.raises(ConfigError, match=r"data\.path: the digest of .* and 0{12}\)"):
        state.load_state_dict(content)
    assert all(torch.equal(value, before[key]) for key, value in state.model.state_dict().items())


def test_averages_and_their_count_come_back(data: Path) -> None:
    first, second = (build_state(data, ema_decay=0.5) for _ in range(2))
    assert first.average is not None
    assert second.average is not None
    with torch.no_grad():
        for weight in first.model.parameters():
            weight.add_(1.0)
    first.average.update_parameters(first.model)
    first.average.update_parameters(first.model)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert int(second.average.n_averaged) == 2
    expected = first.average.module.state_dict()
    loaded = second.evaluated.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in loaded.items())


@pytest.mark.parametrize(
    ("step", "evaluated", "awaits"),
    [(0, [], False), (4, [], True), (4, [4], False), (5, [4], False), (10, [8], True)],
)
def test_an_evaluation_is_awaited_where_an_attempt_ended_before_it(
    data: Path, step: int, evaluated: list[int], awaits: bool
) -> None:
    from spikeseg.platform.checkpoint.checkpoint import Evaluation

    config = small(data, evaluate_every=4, max_steps=10)
    progress = Progress(micro_batch_size=1, step=step)
    progress.history = [Evaluation(past, {}) for past in evaluated]
    assert progress.awaits_evaluation(config.trainer) is awaits
