"""Step 5: train `camvid_gpu` for the time that is left, evaluate every minute, measure power."""

import csv
import io
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ...datasets.layouts.shapes import Shapes, ShapesOptions
from ...datasets.packed.files import write_file
from ...datasets.packed.pack import pack
from ...datasets.packed.reader import PackedDataset
from ...model.accounting.energy import estimate_energy
from ...platform.checkpoint.checkpoint import Evaluation
from ...platform.checkpoint.run_folder import RunFolder
from ...platform.cluster.worker_group import OneWorker
from ...platform.config.recipes import Resolved, load_experiment, override
from ...platform.evaluation.recording import contact_sheet
from ...platform.evaluation.scores import class_table
from ...platform.figures import charts
from ...platform.train.faults.worker_guard import Guard
from ...platform.train.loop import Training
from ...platform.train.step import Stepper
from .power import PowerMeter
from .step import Step, collect_warnings, run_step

_RUN = "training"
# What is tried for a few steps before the training, which then has the fastest.
_FORMS = {
    "operation by operation, channels_last": {
        "trainer.memory_format": "channels_last",
        "trainer.cuda_graph": False,
    },
    "CUDA graph, channels_last": {
        "trainer.memory_format": "channels_last",
        "trainer.cuda_graph": True,
    },
    "CUDA graph, contiguous": {
        "trainer.memory_format": "contiguous",
        "trainer.cuda_graph": True,
    },
}
_TIMED_STEPS = 10
_REHEARSED_STEPS = 12
# Of the time left after those steps: the rest is for evaluations, pictures and power.
_SHARE = 0.75
_SECONDS_BETWEEN_EVALUATIONS = 60.0
_SECONDS_FOR_RESULTS = 25.0


def measure(step: Step) -> None:
    """Train, score test with the best checkpoint, and leave curves, table, pictures, joules."""
    resolved, speed, seconds = _choose_form(_load(step), step)
    left = step.seconds_left() - seconds
    steps = _REHEARSED_STEPS if step.rehearse else max(4, int(_SHARE * left * speed))
    between = max(1, math.ceil(_SECONDS_BETWEEN_EVALUATIONS * speed))
    between = steps // 2 if step.rehearse else min(steps, between)
    values = {
        "trainer.max_steps": steps,
        "trainer.evaluate_every": between,
        "optimizer.warmup_steps": max(1, steps // 50),
    }
    config = override(resolved, values, "benchmark").config
    step.emit({"case": "schedule", "steps_s": round(speed, 2)} | values)
    run = RunFolder(step.folder / _RUN)
    run.claim()
    training = Training(config, run, group=OneWorker(), recorder=None, progress=print)
    training.start()
    with PowerMeter(step.device) as meter:
        began = time.monotonic()
        for number, evaluation in enumerate(training.evaluations(), 1):
            step.emit({"case": "evaluation", "at_step": evaluation.step} | _round(evaluation))
            each = (time.monotonic() - began) / number
            # The schedule counts on the first steps' speed; what was reached must not be lost.
            if not training.finished and step.seconds_left() < each + _SECONDS_FOR_RESULTS:
                step.emit({"case": "stopped early", "at_step": evaluation.step, "of": steps})
                break
    step.emit({"case": "training power", "watts": meter.mean_watts})
    _score(step, training)
    step.try_check("joules an image", lambda: _measure_joules(step, training))


def _load(step: Step) -> Resolved:
    tiny = ["data.transform.crop=[48,64]", "data.transform.box=[48,64]"]
    tiny += ["data.transform.test_box=[48,64]", "trainer.micro_batch_size=2"]
    tiny += ["trainer.precision=fp32", "model.backbone.embed_dims=[16,32,64,96]"]
    tiny += ["model.backbone.depths=[0,0]", "model.fpn.width=32", "model.backbone.num_heads=4"]
    data, classes = step.data, []
    if data is None:
        data = step.folder / "generated"
        size, rows = ((48, 64), 16) if step.rehearse else ((360, 480), 400)
        pack("shapes", Shapes(ShapesOptions(size=size, train=rows, val=8, test=8)), Path(), data)
        classes = [f"model.num_classes={len(PackedDataset.open(str(data)).label_space.classes)}"]
    values = [f"data.path={data}", f"trainer.device={step.device}", *classes]
    return load_experiment("camvid_gpu", [*values, *(tiny if step.rehearse else [])])


def _choose_form(resolved: Resolved, step: Step) -> tuple[Resolved, float, float]:
    """Time a few steps of every form; the fastest, its steps a second, an evaluation's seconds."""
    forms: dict[str, tuple[Resolved, float, float]] = {}
    for name, values in _FORMS.items():

        def time_form(name: str = name, values: dict[str, Any] = values) -> dict[str, Any]:
            chosen = override(resolved, values, "benchmark")
            with collect_warnings(Stepper.__module__) as warnings:
                speed, seconds = _time_steps(chosen, step)
            # What was left out with a warning is another form under this one's name.
            if not warnings:
                forms[name] = chosen, speed, seconds
            return {"steps_s": round(speed, 2), "warnings": warnings}

        if not forms or step.seconds_left() > _SHARE * step.seconds:
            step.try_check(f"steps, {name}", time_form)
    if not forms:
        raise RuntimeError("no form of a step could be run")
    fastest = max(forms, key=lambda name: forms[name][1])
    step.emit({"case": "form of the training", "form": fastest})
    return forms[fastest]


def _time_steps(resolved: Resolved, step: Step) -> tuple[float, float]:
    """Steps a second, and the seconds of one evaluation."""
    values = {"trainer.max_steps": 10**6, "trainer.evaluate_every": 10**6}
    config = override(resolved, values, "benchmark").config
    run = RunFolder(Path(tempfile.mkdtemp(prefix="timed-", dir=step.folder)))
    run.claim()
    training = Training(config, run, group=OneWorker(), recorder=None, progress=None)
    training.start()
    with Guard(config.trainer, run.path, attempt=run.attempt, rank=0) as guard:
        training.advance(2, guard)
        _synchronize(step.device)
        started = time.perf_counter()
        count = 2 if step.rehearse else _TIMED_STEPS
        training.advance(2 + count, guard)
        _synchronize(step.device)
        speed = count / (time.perf_counter() - started)
        started = time.perf_counter()
        training.score("val", guard.feed)
        return speed, time.perf_counter() - started


def _round(evaluation: Evaluation) -> dict[str, float]:
    names = ("val/mIoU", "energy/mJ", "snn/firing_rate")
    return {n: round(evaluation.metrics[n], 4) for n in names if n in evaluation.metrics}


def _score(step: Step, training: Training) -> None:
    best = training.load_best()
    scores, counts = training.score("test")
    rows = class_table(training.dataset.label_space, counts)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_file(step.folder / "classes.csv", text.getvalue())
    write_file(step.folder / "contact_sheet.png", contact_sheet(training.evaluated, "test"))
    history = [{"step": e.step, **e.metrics} for e in training.history]
    write_file(step.folder / "curves.json", json.dumps(history, indent=1))
    curve = {"val/mIoU": [(e.step, e.metrics["val/mIoU"]) for e in training.history]}
    write_file(step.folder / "curves.png", charts.draw_curves(curve))
    shown = {name: round(value, 3) for name, value in scores.items()}
    step.emit({"case": "test", "best_step": best.step} | shown)


def _measure_joules(step: Step, training: Training) -> dict[str, Any]:
    """Joules an image at inference by the card's power, beside the theoretical figure."""
    evaluated = training.evaluated
    height, width = training.config.data.transform.crop
    images = torch.randn(8, 3, height, width, device=step.device)
    evaluated.model.eval()
    theory = estimate_energy(evaluated.model, images[:1]).total_mj
    count, until = 0, time.perf_counter() + (0.2 if step.rehearse else 5.0)
    with PowerMeter(step.device) as meter, torch.inference_mode():
        started = time.perf_counter()
        while time.perf_counter() < until:
            evaluated.model(images)
            _synchronize(step.device)
            count += len(images)
        seconds = time.perf_counter() - started
    watts = meter.mean_watts
    return {
        "images_s": round(count / seconds, 1),
        "watts": watts,
        "joules": None if watts is None else round(watts * seconds / count, 4),
        "theory_mj": round(theory, 4),
    }


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    run_step("training", measure)
