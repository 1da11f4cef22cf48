"""One training step of an experiment, in a process of its own that can be ended after a limit.

The process measures smaller crops first, so that there is a figure to extrapolate from where the
whole crop takes too long.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from typing import Any, NamedTuple

from ..config.errors import ConfigError
from ..config.recipes import Resolved, dump, load_resolved, override

LIMIT_S = 30.0
_LEAST_CROP = 64


class StepMeasurement(NamedTuple):
    """What a step of one micro-batch cost.

    Attributes:
        seconds: Of one micro-batch, forward, backward and update.
        peak: Bytes of memory of the process at its highest.
        estimated: Whether both are extrapolated by area from `crop`.
        crop: Height and width that were measured.
    """

    seconds: float
    peak: int
    estimated: bool
    crop: tuple[int, int]


def measure_step(resolved: Resolved, limit: float = LIMIT_S) -> StepMeasurement | str:
    """Measure one step of an experiment on this machine's CPU or GPU.

    Args:
        resolved: The experiment.
        limit: Seconds after which the process is ended.

    Returns:
        The measurement; why there is none where not even a small crop was finished.
    """
    whole = tuple(resolved.config.data.transform.crop)
    command = [sys.executable, "-m", "spikeseg.platform.doctor.step_probe"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
    ) as process:
        assert process.stdin is not None
        process.stdin.write(dump(resolved.config))
        process.stdin.close()
        lines = _read_lines(process, time.monotonic() + limit)
        process.kill()
        assert process.stderr is not None
        complaint = process.stderr.read().strip().splitlines()
    if not lines:
        reason = complaint[-1] if complaint else f"not done after {limit:g} s"
        return f"a step of a small crop did not end: {reason}"
    last = lines[-1]
    crop = tuple(last["crop"])
    if crop == whole:
        return StepMeasurement(last["seconds"], last["peak"], False, crop)
    ratio = whole[0] * whole[1] / (crop[0] * crop[1])
    peak = last["base"] + (last["peak"] - last["base"]) * ratio
    return StepMeasurement(last["seconds"] * ratio, int(peak), True, crop)


def _read_lines(process: "subprocess.Popen[str]", deadline: float) -> list[dict[str, Any]]:
    """Lines of JSON that a process prints before a time; it may still run afterwards."""
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                break
            line = process.stdout.readline()
            if not line:
                break
            if line.startswith("{"):
                lines.append(json.loads(line))
    return lines


def _crops(resolved: Resolved) -> list[tuple[int, int]]:
    """Crops of a 64th and a 16th of the area, where these are large enough, and the whole one."""
    height, width = resolved.config.data.transform.crop
    smaller = [(height // (32 * n) * 32, width // (32 * n) * 32) for n in (8, 4)]
    return [*(crop for crop in smaller if min(crop) >= _LEAST_CROP), (height, width)]


def _run(resolved: Resolved) -> None:
    """Measure crop after crop; prints a line of JSON for each."""
    import resource

    import torch

    from ..cluster.worker_group import OneWorker
    from ..loading.training_loader import TrainingRows
    from ..train.faults.preemption import Notice
    from ..train.preparation import build_loss, choose_device, open_data, set_numerics
    from ..train.state import TrainingState
    from ..train.step import Stepper

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for crop in _crops(resolved):
        config = _one_micro_batch(resolved, crop).config
        set_numerics(config.trainer)
        device = choose_device(config.trainer.device)
        dataset = open_data(config)
        state = TrainingState(config, dataset, workers=1, device=device)
        size = config.trainer.micro_batch_size
        rows = TrainingRows.from_config(
            dataset, config, size=size, micro_batches=1, pin_memory=False
        )
        stepper = Stepper(
            config,
            state=state,
            criterion=build_loss(config, dataset).to(device),
            group=OneWorker(),
            notice=Notice(),
            micro_batch_size=size,
        )
        batch = rows.read(0, 0)
        started = time.perf_counter()
        stepper.train_step(0, [batch])
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if device.type == "cuda":
            base, peak = 0, torch.cuda.max_memory_reserved()
        line = {"crop": crop, "seconds": seconds, "peak": peak, "base": base}
        print(json.dumps(line), flush=True)


def _one_micro_batch(resolved: Resolved, crop: tuple[int, int]) -> Resolved:
    """The experiment with steps of one micro-batch, in this process, of a crop."""
    values: dict[str, Any] = {
        "trainer.workers": 0,
        "trainer.min_workers": None,
        "trainer.micro_batches": 1,
        "data.transform.crop": list(crop),
        "data.phases": [],
    }
    return override(resolved, values, "the doctor's measurement")


if __name__ == "__main__":
    try:
        _run(load_resolved(sys.stdin.read()))
    except (ConfigError, RuntimeError, ValueError) as failure:
        sys.exit(str(failure))
