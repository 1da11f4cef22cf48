"""Steps as CUDA graphs, as far as a CPU shows it: the same steps, no wait, a sentence where not."""

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from host_kernels import use_host_kernels
from recorded_training import training
from tiny import experiment, pack_shapes
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.train import step as step_module
from spikeseg.platform.train.passes.step_graph import StepGraph, find_graph_obstacle


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def dense(data: Path, **trainer: Any) -> ExperimentConfig:
    values = {"micro_batch_size": 2, "micro_batches": 3, "max_steps": 2, "evaluate_every": 2}
    return experiment(data, decoder="fpn", **{**values, **trainer})


Trained = tuple[dict[str, Tensor], dict[str, float]]


def train(config: ExperimentConfig, folder: Path) -> Trained:
    """Weights, statistics and averages after all steps, and the evaluation's metrics."""
    made, _ = training(config, folder)
    (evaluation,) = made.evaluations()
    return {k: v.clone() for k, v in made.state.model.state_dict().items()}, evaluation.metrics


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What steps operation by operation lead to."""
    return train(dense(data), tmp_path_factory.mktemp("plain") / "run")


def use_capture(
    monkeypatch: pytest.MonkeyPatch, capture: Callable[[Callable[[], object]], Callable[[], object]]
) -> None:
    """Let steps be graphs on the CPU, captured by a function of the test."""
    monkeypatch.setattr(step_module, "find_graph_obstacle", lambda *_: "")
    graph = functools.partial(StepGraph, capture=capture)
    monkeypatch.setattr(step_module, "StepGraph", graph)


def test_without_a_gpu_a_warning_says_so_and_steps_are_the_same(
    data: Path, plain: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        asked, _ = train(dense(data, cuda_graph=True), tmp_path / "asked")
    assert (
        "trainer.cuda_graph is set, but there is no GPU: steps run operation by operation"
        in caplog.messages
    )
    assert all(torch.equal(plain[0][name], asked[name]) for name in asked)


def test_captured_steps_change_weights_and_statistics_as_others_do(
    data: Path, plain: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = []

    def warm_up(run: Callable[[], object]) -> Callable[[], object]:
        captures.append(run)
        # As warm-up and capture do: gradients and statistics advance, on inputs that are kept.
        for _ in range(3):
            run()
        return run

    use_capture(monkeypatch, warm_up)
    graphed, seen = train(dense(data, cuda_graph=True), tmp_path / "graphed")
    assert len(captures) == 1
    weights, metrics = plain
    assert weights.keys() == graphed.keys()
    assert all(torch.equal(weights[name], graphed[name]) for name in weights)
    same = [name for name in metrics if name.startswith("val/")]
    assert same and all(metrics[name] == seen[name] for name in same)


def test_a_step_that_cannot_be_captured_is_done_all_the_same(
    data: Path,
    plain: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:

    def refuse(run: Callable[[], object]) -> Callable[[], object]:
        run()
        raise RuntimeError("operation not permitted when stream is capturing")

    use_capture(monkeypatch, refuse)
    with caplog.at_level(logging.WARNING):
        after, _ = train(dense(data, cuda_graph=True), tmp_path / "refused")
    found = [line for line in caplog.messages if "no CUDA graph of them is captured" in line]
    assert found == [
        "steps run operation by operation, no CUDA graph of them is captured: operation not "
        "permitted when stream is capturing"
    ]
    assert all(torch.equal(plain[0][name], after[name]) for name in after)


@pytest.mark.slow
def test_a_capture_that_runs_out_of_memory_halves_the_micro_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def fill(run: Callable[[], object]) -> Callable[[], object]:
        run()
        sizes.append(1)
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run

    use_capture(monkeypatch, fill)
    config = dense(data, cuda_graph=True)
    made, _ = training(config, tmp_path / "run")
    assert len(list(made.evaluations())) == 1
    assert made.state.progress.micro_batch_size == 1
    assert len(sizes) == 2


def test_wrong_labels_are_refused_in_front_of_a_graph(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_capture(monkeypatch, lambda run: run)
    made, _ = training(dense(data, cuda_graph=True), tmp_path / "run")
    made._prepare()
    (batches,) = made.rows.steps(0, 1, made._stepper.indices)
    batches[0].targets[0, 0, 0] = 77
    with pytest.raises(ValueError, match="label 77 in the targets, but num_classes is 9"):
        made._stepper.train_step(0, batches)


def test_another_shape_is_captured_anew_and_buffers_stay_as_they_were() -> None:
    norm = nn.BatchNorm2d(3)
    captured = []

    def compute(images: Tensor, target: Tensor, normalizer: Tensor) -> list[Tensor]:
        return [(norm(images).mean() * target.sum() / normalizer).detach()]

    def warm_up(run: Callable[[], object]) -> Callable[[], object]:
        run()
        assert norm.num_batches_tracked is not None
        captured.append(int(norm.num_batches_tracked))
        return run

    graph = StepGraph(compute, norm, warm_up)
    for number, size in enumerate((4, 4, 6, 4), 1):
        (term,) = graph.run(torch.randn(2, 3, size, size), torch.ones(2, 2), torch.tensor(2.0))
        assert term.shape == ()
        assert norm.num_batches_tracked == number
    assert captured == [1, 3, 4]


class Watch(TorchDispatchMode):
    """Writes down the operations for which a GPU's results would be waited for."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.count += 1
        masks = name in ("index", "index_put", "index_put_") and any(
            isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        if name in self.WAITS or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def graphed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A training on the CUDA kernels' host build whose steps are graphs, with one step's rows."""
    use_host_kernels(monkeypatch)
    use_capture(monkeypatch, lambda run: run)
    made, _ = training(dense(data, cuda_graph=True), tmp_path / "run")
    made._prepare()
    made.state.model.train()
    yield made


def test_no_operation_of_a_captured_pass_waits_for_the_device(graphed: Any) -> None:
    (batches,) = graphed.rows.steps(0, 1, graphed._stepper.indices)
    stepper, batch = graphed._stepper, batches[0]
    with Watch() as watch:
        stepper._run_checked_pass(batch.images, batch.targets, torch.tensor(9.0))
    assert watch.count > 100
    assert not watch.seen
    with Watch() as watch:
        stepper._loss_terms(batch.images, batch.targets, torch.tensor(9.0))
    # The check of the labels is what waits, and is done before.
    assert watch.seen


def test_who_cannot_be_captured_is_told_why(data: Path) -> None:
    gpu = torch.device("cuda")

    def obstacle(size: int = 1, loss: dict[str, Any] | None = None, **trainer: Any) -> str:
        tree = dense(data, **trainer).model_dump(mode="json")
        tree["loss"] |= loss or {}
        config = ExperimentConfig.model_validate(tree, strict=False)
        return find_graph_obstacle(config, gpu, size)

    assert obstacle() == obstacle(precision="bf16") == ""
    assert "Lovász" in obstacle(loss={"lovasz_weight": 0.5})
    assert "fp16" in obstacle(precision="fp16")
    together = {"batch_norm": "synchronized", "micro_batches": 2, "workers": 2}
    assert "every BatchNorm" in obstacle(2, **together)
    assert obstacle(1, **together) == ""
    assert "matched on the host" in find_graph_obstacle(experiment(data), gpu, 1)
    assert find_graph_obstacle(dense(data), torch.device("cpu"), 1) == "there is no GPU"


def test_the_order_of_memory_decides_last_bits_alone(data: Path, tmp_path: Path) -> None:
    results = {}
    for layout in ("auto", "channels_last", "contiguous"):
        made, _ = training(
            dense(data, memory_format=layout, max_steps=1, evaluate_every=1), tmp_path / layout
        )
        weights = [p for p in made.state.model.parameters() if p.dim() == 4 and min(p.shape) > 1]
        last = [p.is_contiguous(memory_format=torch.channels_last) for p in weights]
        assert weights and all(last) == (layout != "contiguous") == any(last)
        (batches,) = made.rows.steps(0, 1, made._stepper.indices)
        results[layout] = made._stepper.train_step(0, batches)
    assert results["auto"] == results["channels_last"]
    first, second = results["channels_last"], results["contiguous"]
    assert first.outcome == second.outcome == "done"
    assert first.norm == pytest.approx(second.norm, rel=1e-3)
    assert first.terms == pytest.approx(second.terms, rel=1e-4)
