"""What a step computes does not depend on how many workers computed it."""

import multiprocessing
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from spikeseg.platform.cluster.worker_group import OneWorker, ProcessGroup
from spikeseg.platform.train.passes.reduction import StepVector, micro_batch_range

MICRO_BATCHES = 6


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def images(index: int) -> Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(index))


def run_step(
    reduction: Literal["flat", "strict"], group: OneWorker | ProcessGroup
) -> dict[str, Tensor]:
    model = network()
    vector = StepVector(
        model, num_terms=1, micro_batches=MICRO_BATCHES, group=group, reduction=reduction
    )
    vector.begin()
    for index in micro_batch_range(MICRO_BATCHES, group):
        loss = (model(images(index)) ** 2).mean() / MICRO_BATCHES
        loss.backward()
        vector.add(index, [loss.detach()])
    vector.reduce()
    return {
        "gradient": vector.gradient.clone(),
        "terms": vector.terms.clone(),
        **{name: buffer.clone() for name, buffer in model.named_buffers()},
    }


def failing_step(reduction: Literal["flat", "strict"], group: OneWorker | ProcessGroup) -> Any:
    """A step whose last worker gives up after its first micro-batch."""
    model = network()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    vector = StepVector(
        model, num_terms=1, micro_batches=MICRO_BATCHES, group=group, reduction=reduction
    )
    vector.begin()
    for index in micro_batch_range(MICRO_BATCHES, group):
        (model(images(index)) ** 2).mean().backward()
        vector.add(index, [torch.zeros(())])
        if group.rank == group.size - 1:
            vector.fail()
            break
    whole = torch.tensor(vector.reduce())
    same = all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    return {"whole": whole, "same": torch.tensor(same)}


def _worker(rank: int, size: int, folder: str, reduction: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    step, _, kind = reduction.rpartition(" ")
    assert kind == "flat" or kind == "strict"
    result = (failing_step if step else run_step)(kind, ProcessGroup())
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def with_workers(size: int, folder: Path, reduction: str) -> list[dict[str, Tensor]]:
    context = multiprocessing.get_context("fork")
    folder.mkdir()
    workers = [
        context.Process(target=_worker, args=(rank, size, str(folder), reduction))
        for rank in range(size)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def test_micro_batches_are_shared_whole_and_in_order() -> None:
    class Group(OneWorker):
        size = 4

    parts = [list(micro_batch_range(6, Group(), rank)) for rank in range(4)]
    assert [index for part in parts for index in part] == list(range(6))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_statistics_advance_once_by_the_mean_over_micro_batches() -> None:
    result = run_step("flat", OneWorker())
    features = [network()[0](images(index)) for index in range(MICRO_BATCHES)]
    mean = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    assert torch.allclose(result["1.running_mean"], 0.1 * mean, atol=1e-7)
    assert result["1.num_batches_tracked"] == 1


@pytest.mark.parametrize("size", [2, 3])
def test_flat_gradients_differ_only_by_rounding(size: int, tmp_path: Path) -> None:
    alone = run_step("flat", OneWorker())
    results = with_workers(size, tmp_path / "w", "flat")
    for result in results:
        assert torch.equal(result["gradient"], results[0]["gradient"])
        error = (result["gradient"] - alone["gradient"]).abs().max()
        assert error <= 1e-6 * alone["gradient"].abs().max()


@pytest.mark.parametrize("size", [2, 3])
def test_strict_sums_are_equal_bit_for_bit_for_any_number_of_workers(
    size: int, tmp_path: Path
) -> None:
    alone = run_step("strict", OneWorker())
    for result in with_workers(size, tmp_path / "w", "strict"):
        for name, value in alone.items():
            assert torch.equal(result[name], value), name


@pytest.mark.parametrize("reduction", ["flat", "strict"])
def test_a_worker_that_gives_up_undoes_the_step_on_all(tmp_path: Path, reduction: str) -> None:
    for result in with_workers(3, tmp_path / "w", f"failing {reduction}"):
        assert not result["whole"]
        assert result["same"]
