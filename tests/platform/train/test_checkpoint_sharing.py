"""At a resume one worker reads and hashes a checkpoint; all have its content, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import experiment, pack_shapes
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.cluster.worker_group import ProcessGroup
from spikeseg.platform.train.checkpoint_sharing import share_content
from spikeseg.platform.train.loop import Training

CONTENT: dict[str, Any] = {
    "model": {
        "bias": torch.tensor([1.5], dtype=torch.float16),
        "weight": torch.arange(12.0).view(3, 4),
        "scalar": torch.tensor(3.25),
        "half": torch.tensor([[1.0, -2.0, float("nan")]], dtype=torch.bfloat16),
    },
    "optimizer": {},
    "ema": {"counter": torch.tensor(7), "empty": torch.empty(0, 3), "nan": torch.full((5,), -0.0)},
    "state": {"step": 5, "history": [], "config": "a: 1"},
}


def in_workers(work: Callable[..., None], size: int, *arguments: Any) -> None:
    spawn(_begin, args=(size, work, arguments), nprocs=size)


def _begin(rank: int, size: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = f"file://{arguments[0]}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=size)
    try:
        work(ProcessGroup(), *arguments)
    finally:
        torch.distributed.destroy_process_group()


def same_bits(one: Tensor, other: Tensor) -> bool:
    alike = one.shape == other.shape and one.dtype == other.dtype
    flat = [item.contiguous().reshape(-1).view(torch.uint8) for item in (one, other)]
    return alike and torch.equal(*flat)


def share(group: ProcessGroup, folder: Path) -> None:
    shared = share_content(CONTENT if group.rank == 0 else None, group, torch.device("cpu"))
    assert shared["state"] == CONTENT["state"]
    assert shared.keys() == CONTENT.keys()
    for name in ("model", "optimizer", "ema"):
        assert shared[name].keys() == CONTENT[name].keys()
        for key, value in CONTENT[name].items():
            assert same_bits(shared[name][key], value), f"{name}/{key}"
    (folder / f"shared-{group.rank}").touch()


def resume(group: ProcessGroup, folder: Path) -> None:
    """Resume a training and load its best weights; leave the files read and the weights."""
    read: list[str] = []
    patch = pytest.MonkeyPatch()
    opened = Path.open

    def counting(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.parent.parent.name == "checkpoints" and path.suffix == ".safetensors":
            read.append(path.name)
        return opened(path, *arguments, **named)

    patch.setattr(Path, "open", counting)
    run = RunFolder(folder / "run")
    if group.rank == 0:
        run.claim()
    run.attempt = group.broadcast_json(run.attempt)
    config = experiment(folder / "data", decoder="fpn", max_steps=2, micro_batches=2)
    made = Training(config, run, group=group, recorder=None, progress=None)
    made.start()
    assert made.step == 2
    resumed = {key: value.clone() for key, value in made.state.model.state_dict().items()}
    best = made.load_best()
    kept = run.path / "checkpoints" / f"step-{best.step:08d}"
    torch.save(
        {"read": read, "model": resumed, "best": made.state.evaluated.state_dict()},
        folder / f"rank-{group.rank}.pt",
    )
    assert kept.is_dir()
    patch.undo()


@pytest.mark.slow
def test_content_is_shared_bit_for_bit(tmp_path: Path) -> None:
    in_workers(share, 2, tmp_path)
    assert len(list(tmp_path.glob("shared-*"))) == 2


@pytest.mark.slow
def test_only_one_worker_reads_a_checkpoint_at_a_resume(tmp_path: Path) -> None:
    from recorded_training import trained

    data = pack_shapes(tmp_path / "data")
    config = experiment(data, decoder="fpn", max_steps=2, micro_batches=2)
    trained(config, tmp_path / "run")
    in_workers(resume, 2, tmp_path)
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt") for rank in (0, 1))
    assert second["read"] == []
    assert set(first["read"]) == {"model.safetensors", "optimizer.safetensors", "ema.safetensors"}
    kept = RunFolder(tmp_path / "run").at(2)
    for found in (first, second):
        for name, expected in (("model", kept.tensors("model")), ("best", kept.tensors("ema"))):
            assert found[name].keys() == expected.keys()
            assert all(same_bits(found[name][key], expected[key]) for key in expected)
