"""Synchronized BatchNorm is BatchNorm over the images of all workers."""

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from crash import Group, Kill
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny import experiment, pack_shapes
from torch import Tensor, nn

from spikeseg.platform.cluster.worker_group import OneWorker, ProcessGroup, WorkerGroup
from spikeseg.platform.train.passes.reduction import StepVector
from spikeseg.platform.train.passes.synchronized_norm import SynchronizedBatchNorm, synchronize

WORKERS = 3
STEPS = 4


def images(rank: int) -> Tensor:
    drawn = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(rank))
    return drawn * (1 + rank) + 10 * rank  # workers see different means and variances


def step(x: Tensor, group: WorkerGroup | None) -> dict[str, Tensor]:
    """Forward and backward of two norms; with `group`, this worker's part of the images."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Tanh())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    if group is not None:
        synchronize(model, group)
    vector = StepVector(
        model, num_terms=1, micro_batches=WORKERS, group=group or OneWorker(), reduction="flat"
    )
    vector.begin()
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    if group is not None:
        vector.add(group.rank, [torch.zeros(())])
        vector.reduce()
    assert x.grad is not None
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    return {"y": y.detach(), "dx": x.grad, "gradient": vector.gradient.clone(), **statistics}


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORKERS
    )
    torch.save(step(images(rank), ProcessGroup()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_workers_together_compute_what_one_process_does_on_all_images(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_worker, args=(r, str(tmp_path))) for r in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORKERS)]
    whole = step(torch.cat([images(rank) for rank in range(WORKERS)]), None)
    for name in ("y", "dx"):
        together = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(together, whole[name], rtol=2e-4, atol=2e-5)
    for name in set(whole) - {"y", "dx"}:
        for part in parts:
            torch.testing.assert_close(part[name], whole[name], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.BatchNorm1d, (2, 2, 9)), (nn.BatchNorm2d, (2, 2, 3, 3))]
)
def test_gradients_are_those_of_finite_differences(
    layer: type[nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    norm = layer(2).double()
    synchronize(norm, OneWorker())
    assert isinstance(norm, SynchronizedBatchNorm)

    def f(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)

    given = [torch.randn(s, dtype=torch.float64) for s in (shape, (2,), (2,))]
    assert torch.autograd.gradcheck(f, [tensor.requires_grad_() for tensor in given])


def test_sixteen_bit_activations_keep_their_type() -> None:
    norm = nn.BatchNorm2d(3)
    synchronize(norm, OneWorker())
    x = images(0).bfloat16().requires_grad_()
    y = norm(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad is not None and x.grad.dtype == torch.bfloat16
    assert norm.weight.grad is not None and norm.weight.grad.dtype == torch.float32


def test_in_eval_mode_it_is_the_layer_it_was_made_of() -> None:
    norm = nn.BatchNorm2d(3).eval()
    expected = norm(images(1))
    synchronize(norm, OneWorker())
    assert torch.equal(norm(images(1)), expected)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    started = Group()
    yield started
    started.close()


def config(data: Path, steps: int = STEPS, seed: int = 5, **trainer: Any) -> str:
    given = {"max_steps": steps, "evaluate_every": 2, **trainer}
    tree = json.loads(experiment(data, decoder="fpn", **given).model_dump_json())
    tree["seed"] = seed
    # `corrected` looks at the first micro-batch before it starts, which is larger in one process.
    tree["model"]["compat"] = "published"
    return json.dumps(tree)


def tensors(run: Path, name: str, steps: int = STEPS) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step-{steps:08d}" / f"{name}.safetensors")


def first_step(run: Path) -> dict[str, Tensor]:
    """Running statistics and gradient of a training of one step, each as one vector."""
    statistics, moments = tensors(run, "model", 1).items(), tensors(run, "optimizer", 1).items()
    return {
        "statistics": torch.cat([v.flatten() for key, v in statistics if "running_" in key]),
        "gradient": torch.cat([v.flatten() for key, v in moments if key.endswith("exp_avg")]),
    }


@pytest.mark.slow
def test_two_workers_take_the_step_of_one_process_with_a_micro_batch_of_all_images(
    group: Group, data: Path, tmp_path: Path
) -> None:
    # A single step: a bias before BatchNorm has only rounding for a gradient, which Adam enlarges.
    def step(run: str, workers: int, given: str) -> dict[str, Tensor]:
        assert set(group.attempt(tmp_path / run, given, workers)[0]) == {0}
        return first_step(tmp_path / run)

    two = {"micro_batch_size": 2, "micro_batches": 2, "workers": 2}
    alone, together = {}, {}
    for seed in (5, 6, 7):
        one = config(data, 1, seed, micro_batch_size=4, micro_batches=1)
        alone[seed] = step(f"alone-{seed}", 0, one)
        given = config(data, 1, seed, **two, batch_norm="synchronized")
        together[seed] = step(f"synchronized-{seed}", 2, given)
    apart = step("apart", 2, config(data, 1, 5, **two))
    for kind in ("statistics", "gradient"):
        # The middle one: sums in another order may take a spike of one seed over a boundary.
        found = sorted(distance(together[seed][kind], alone[seed][kind]) for seed in alone)
        assert found[1] < 1e-4, (kind, found)
        assert distance(apart[kind], alone[5][kind]) > 1e-3, kind


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.slow
def test_a_kill_leaves_the_same_bytes(group: Group, data: Path, tmp_path: Path) -> None:
    given = config(data, micro_batches=3, workers=3, batch_norm="synchronized", checkpoint_every=1)
    assert group.attempt(tmp_path / "quiet", given, 3)[0] == [0, 0, 0]
    codes, _ = group.attempt(tmp_path / "killed", given, 3, Kill(1, "backward", 2, whole=False))
    assert -9 in codes
    assert group.attempt(tmp_path / "killed", given, 3)[0] == [0, 0, 0]
    for name in ("model", "optimizer", "ema"):
        expected = tensors(tmp_path / "quiet", name)
        for key, value in tensors(tmp_path / "killed", name).items():
            assert torch.equal(value, expected[key]), (name, key)


@pytest.mark.parametrize(
    ("trainer", "rule"),
    [
        ({"micro_batches": 4, "workers": 2}, "needs one micro-batch a worker, got 4"),
        ({"micro_batches": 2, "workers": 2, "min_workers": 1}, "min_workers must be null, got 1"),
    ],
)
def test_what_cannot_be_kept_is_refused(data: Path, trainer: dict[str, Any], rule: str) -> None:
    tree = json.loads(experiment(data, decoder="fpn", micro_batches=4).model_dump_json())
    tree["trainer"] |= {"batch_norm": "synchronized", **trainer}
    with pytest.raises(ValidationError, match=rule):
        type(experiment(data)).model_validate_json(json.dumps(tree))
