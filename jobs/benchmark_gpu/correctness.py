"""Step 2: GPU tests, the neurons' law, training on both devices, kills, NCCL."""

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from ...platform.config.recipes import Resolved, override
from ...platform.train.step import Stepper
from ..benchmark.neuron_correctness import DTYPES, list_checks
from .small_training import (
    load_small_experiment,
    pack_small_data,
    read_weights,
    score_on,
    train_small,
)
from .step import Step, collect_warnings, run_step

_STEPS = 10
# Bound on the difference of the loss: float32 sums in another order, then ten steps of it.
_FIRST, _LAST = 1e-3, 0.1
_ROOT = Path(__file__).parents[2]


def measure(step: Step) -> None:
    """Run every check; each is a row, whatever another one did."""
    step.try_check("tests of the neurons", lambda: _run_tests(step))
    for name, check in list_checks(step.device, tuple(DTYPES.values())).items():
        step.try_check(name, check)
    with tempfile.TemporaryDirectory() as folder:
        data = pack_small_data(Path(folder) / "data")
        experiment = load_small_experiment(data, steps=_STEPS)
        home = Path(folder)
        step.try_check(
            f"{_STEPS} steps of a training as on the CPU",
            lambda: _compare_training(experiment, step.device, home),
        )
        dense = load_small_experiment(data, steps=_STEPS, decoder="fpn")
        step.try_check(
            f"{_STEPS} steps as CUDA graphs, and in the other order of memory, as without",
            lambda: _compare_forms(dense, step.device, home),
        )
        step.try_check(
            "a checkpoint scores alike on the other device",
            lambda: _compare_scores(step.device, home),
        )
        step.try_check(
            "killed and resumed: weights byte-equal",
            lambda: _kill_and_resume(step, home, data),
        )
    step.try_check("collectives of one worker", lambda: _reduce_alone(step.device))


def _run_tests(step: Step) -> dict[str, Any]:
    tests = _ROOT / "tests" / "model" / "neuron"
    if not tests.is_dir():
        return {"skipped": f"no tests at {tests}: a checkout has them"}
    report = step.folder / "tests.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        f"--junitxml={report}",
        "-p",
        "no:cacheprovider",
    ]
    if step.rehearse:
        command += ["-m", "not gpu", "-k", "kernels-on-cpu", str(tests / "test_constraints.py")]
        command += [str(tests / "test_batch_norm_lif.py")]
    else:
        command += ["-m", "gpu", str(tests)]
    limit = 0.55 * step.seconds
    try:
        subprocess.run(command, cwd=_ROOT, timeout=limit, stdout=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not finished after {limit:.0f} s: run pytest -m gpu alone") from None
    columns = read_test_report(report)
    if columns["failed"] or not columns["passed"]:
        raise RuntimeError(f"{columns['failed']} failed, {columns['passed']} passed: {columns}")
    return columns


def read_test_report(path: Path) -> dict[str, Any]:
    """Read pytest's JUnit file: counts, and name and first line of every failure.

    Args:
        path: The file.
    """
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    broken = {
        f"{case.get('classname')}::{case.get('name')}": (bad.get("message") or "").split("\n")[0]
        for case in cases
        for bad in [*case.findall("failure"), *case.findall("error")]
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(broken) - skipped,
        "failed": len(broken),
        "skipped_tests": skipped,
        "failures": broken,
    }


def _compare_training(experiment: Resolved, device: str, home: Path) -> dict[str, Any]:
    ours = train_small(experiment, device, home / f"on-{device}")
    reference = train_small(experiment, "cpu", home / "on-cpu-torch", backend="torch")
    apart = [abs(a - b) / abs(b) for a, b in zip(ours, reference, strict=True)]
    columns = {"first": apart[0], "last": apart[-1], "bounds": [_FIRST, _LAST]}
    # Not the other way round: a loss that is no number is no match.
    if not (apart[0] <= _FIRST and apart[-1] <= _LAST):
        raise RuntimeError(f"losses differ beyond the bound: {columns}")
    return columns


def _compare_forms(experiment: Resolved, device: str, home: Path) -> dict[str, Any]:
    """Train with and without a graph and in both orders of memory: the same losses, bounds told.

    The order of memory changes last bits, which ten steps of spikes make large: there the first
    loss alone has a bound.
    """
    forms = {
        "plain": {"trainer.memory_format": "channels_last"},
        "graph": {"trainer.memory_format": "channels_last", "trainer.cuda_graph": True},
        "contiguous": {"trainer.memory_format": "contiguous"},
    }
    losses: dict[str, list[float]] = {}
    with collect_warnings(Stepper.__module__) as warnings:
        for form, values in forms.items():
            config = override(experiment, values, "benchmark")
            losses[form] = train_small(config, device, home / form)
    columns: dict[str, Any] = {"bounds": [_FIRST, _LAST], "warnings": warnings}
    for form, last in (("graph", _LAST), ("contiguous", math.inf)):
        apart = [abs(a - b) for a, b in zip(losses["plain"], losses[form], strict=True)]
        columns[form] = "equal" if not any(apart) else f"first {apart[0]:.1e}, last {apart[-1]:.1e}"
        if not (apart[0] <= _FIRST and apart[-1] <= last):
            raise RuntimeError(f"{form}: losses {losses[form]}, expected {losses['plain']}")
    return columns


def _compare_scores(device: str, home: Path) -> dict[str, Any]:
    run = home / f"on-{device}"
    here = score_on(run, device)
    there = score_on(run, "cpu", backend="torch")
    columns = {device: here, "cpu, torch": there, "difference": here - there}
    if abs(here - there) > 0.5:
        raise RuntimeError(f"val/mIoU of one checkpoint differs by more than 0.5: {columns}")
    return columns


def _kill_and_resume(step: Step, home: Path, data: Path) -> dict[str, Any]:
    whole = _train_in_child(step, home / "whole", data)
    if whole.wait():
        raise RuntimeError("the training that was not killed failed: see the log")
    killed = _train_in_child(step, home / "killed", data)
    checkpoint = home / "killed" / "checkpoints" / f"step-{_STEPS // 2:08d}" / "manifest.json"
    while killed.poll() is None and not checkpoint.is_file():
        time.sleep(0.02)
    ended = killed.poll() is not None
    if not ended:
        os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    if _train_in_child(step, home / "killed", data).wait():
        raise RuntimeError("the resumed training failed: see the log")
    wanted, actual = read_weights(home / "whole"), read_weights(home / "killed")
    different = [name for name in wanted if not torch.equal(wanted[name], actual[name])]
    if different or wanted.keys() != actual.keys():
        raise RuntimeError(f"{len(different)} of {len(wanted)} tensors differ: {different[:3]}")
    return {"tensors": len(wanted), "killed_before_its_end": not ended}


def _train_in_child(step: Step, run: Path, data: Path) -> subprocess.Popen[bytes]:
    module = f"{__package__}.small_training"
    arguments = [str(run), str(data), str(_STEPS), step.device, *(["host"] * step.rehearse)]
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment)


def _reduce_alone(device: str) -> dict[str, Any]:
    backend = "nccl" if device == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        return _reduce(backend, device, f"file://{folder}/store")


def _reduce(backend: str, device: str, address: str) -> dict[str, Any]:
    torch.distributed.init_process_group(backend, init_method=address, rank=0, world_size=1)
    try:
        x = torch.arange(1 << 20, device=device, dtype=torch.float32)
        total = x.clone()
        torch.distributed.all_reduce(total)
        if not torch.equal(total, x):
            raise RuntimeError(f"{backend}: the sum over one worker is not its own numbers")
    finally:
        torch.distributed.destroy_process_group()
    return {"backend": backend}


if __name__ == "__main__":
    run_step("correctness", measure)
