"""The compiled peer of the benchmark is compiled in every row, not only in the first ones."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from spikeseg.jobs.benchmark.neuron_peers import check_peer, find_peers
from spikeseg.jobs.benchmark.neuron_timing import list_phases

MODES = ("torch.compile", "torch.compile max-autotune")


def test_every_row_and_phase_of_the_compiled_peer_runs_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[int] = []

    def count(module: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            ran.append(1)
            return module(*arguments)

        return run

    compile_ = torch.compile

    def without_inductor(function: Any, *, mode: str | None = None, **more: Any) -> Any:
        # One backend a mode, as Inductor's options are.
        return compile_(function, backend=functools.partial(count), **more)

    monkeypatch.setattr(torch, "compile", without_inductor)
    for elements in (4096, 256):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            x = torch.randn(1, elements).to(dtype)
            found, _ = find_peers("stateless", 1, compile_=True)
            for name in MODES:
                assert check_peer(found[name], x) == ""
                for phase, call in list_phases(found[name], [(x, torch.ones_like(x))]).items():
                    if phase == "backward":
                        continue
                    ran.clear()
                    call()
                    assert ran, f"{name} ran eager: {phase}, {dtype}, {elements} elements"
