"""Forward and backward pass of a micro-batch as a CUDA graph: captured once a shape, replayed."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...config.schema import ExperimentConfig

Capture = Callable[[Callable[[], object]], Callable[[], object]]
_WARM_UPS = 3


def find_graph_obstacle(config: ExperimentConfig, device: torch.device, workers: int) -> str:
    """Reason why steps of an experiment cannot be captured; empty if they can.

    Args:
        config: The experiment.
        device: Where it trains.
        workers: How many train together.
    """
    if device.type != "cuda":
        return "there is no GPU"
    if config.model.decoder == "query":
        return "the query decoder's queries are matched on the host"
    if config.loss.lovasz_weight:
        return "the Lovász term asks the host which classes occur (loss.lovasz_weight)"
    if config.trainer.precision == "fp16":
        return "the scale of fp16 gradients changes from step to step"
    if config.trainer.batch_norm == "synchronized" and workers > 1:
        return "workers talk to one another in every BatchNorm (trainer.batch_norm)"
    return ""


def capture_cuda_graph(run: Callable[[], object]) -> Callable[[], None]:
    """Capture the GPU work of a function as a graph, after runs that load and tune its kernels.

    Args:
        run: Works on the same tensors in every call, and waits for no value of the GPU.

    Returns:
        The graph's replay.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Threads that read ahead may allocate pinned memory meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay


class StepGraph:
    """Replays a micro-batch's pass on inputs of the shape that it was captured with.

    Gradients are added to the parameters' `.grad`, which must be there and stay where they are.

    Args:
        compute: Images, targets and normalizer to detached loss terms; adds gradients, advances
            buffers, and waits for no value of the device.
        model: Whose gradients and buffers it changes.
        capture: Makes a replay of a function; the function has run then, any number of times.
    """

    def __init__(
        self,
        compute: Callable[[Tensor, Tensor, Tensor], list[Tensor]],
        model: nn.Module,
        capture: Capture = capture_cuda_graph,
    ) -> None:
        self._compute = compute
        self._model = model
        self._capture = capture
        self._inputs: list[Tensor] = []
        self._terms: list[Tensor] = []
        self._replay: Callable[[], object] | None = None

    def run(self, images: Tensor, target: Tensor, normalizer: Tensor) -> list[Tensor]:
        """Loss terms of a micro-batch, valid until the next call.

        Args:
            images: (B, C, H, W) on the device.
            target: (B, H, W) on the device, checked.
            normalizer: Scalar on the device.
        """
        inputs = (images, target, normalizer)
        if self._replay is None or [i.shape for i in inputs] != [i.shape for i in self._inputs]:
            self._prepare(inputs)
        assert self._replay is not None
        for kept, value in zip(self._inputs, inputs, strict=True):
            kept.copy_(value)
        self._replay()
        return self._terms

    def _prepare(self, inputs: Sequence[Tensor]) -> None:
        """Capture for the shapes of these inputs; gradients and buffers stay as they were."""
        # The memory of an earlier graph is free before that of the next is taken.
        self._replay, self._terms = None, []
        self._inputs = [value.clone() for value in inputs]
        changed = [*self._model.buffers()]
        changed += [p.grad for p in self._model.parameters() if p.grad is not None]
        before = [tensor.clone() for tensor in changed]

        def run() -> None:
            self._terms = self._compute(*self._inputs)

        try:
            self._replay = self._capture(run)
        finally:
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
