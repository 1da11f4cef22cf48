"""Every class of failure is met as the configuration says, and the run tells of it."""

import faulthandler
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_training import Record, files, small, trained, training
from tiny import experiment, pack_shapes
from torch import Tensor

from spikeseg.datasets.spec import DataError, StorageAwayError
from spikeseg.model.neuron.backends.dispatch import BackendError
from spikeseg.platform.checkpoint.run_folder import FencedError, NoGoodCheckpointError, RunFolder
from spikeseg.platform.config.recipes import ConfigError, Resolved
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.train.failure import (
    Decision,
    NonFiniteError,
    OutOfMemoryForGoodError,
    PreemptedError,
    decide,
)
from spikeseg.platform.train.faults.watchdog import list_hangs
from spikeseg.platform.train.loop import Training
from spikeseg.platform.train.step import Stepper, next_divisor
from spikeseg.platform.train.trainer import preflight, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def break_terms(monkeypatch: pytest.MonkeyPatch, at: dict[int, int]) -> None:
    """Make the loss NaN at given positions of the stream of steps, each so many times."""
    take, terms = Stepper.train_step, Stepper._loss_terms
    where = {"position": -1}

    def taking(self: Stepper, step: int, micro_batches: Any) -> Any:
        where["position"] = step
        return take(self, step, micro_batches)

    def breaking(self: Stepper, images: Tensor, target: Tensor, normalizer: Tensor) -> Any:
        found = terms(self, images, target, normalizer)
        if at.get(where["position"], 0):
            at[where["position"]] -= 1
            return {name: value * float("nan") for name, value in found.items()}
        return found

    monkeypatch.setattr(Stepper, "train_step", taking)
    monkeypatch.setattr(Stepper, "_loss_terms", breaking)


def test_a_loss_that_is_not_finite_stops_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_terms(monkeypatch, {3: 1})
    with pytest.raises(NonFiniteError, match=r"step 3: loss terms .* not finite"):
        trained(small(data), tmp_path / "run")
    newest = RunFolder(tmp_path / "run").newest()
    assert newest is not None and newest.step == 2


def test_skip_leaves_weights_and_statistics_as_they_were(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_terms(monkeypatch, {4: 1})
    record = Record()
    config = small(data, nonfinite="skip", ema_decay=None, checkpoint_every=1, keep_checkpoints=5)
    trained(config, tmp_path / "run", record)
    assert files(tmp_path / "run", 5) == files(tmp_path / "run", 4)
    assert "step 4" in record.texts["events.txt"] and "left out" in record.texts["events.txt"]


def test_skipping_has_a_budget(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_terms(monkeypatch, {1: 1, 2: 1})
    with pytest.raises(NonFiniteError, match=r"step 2: .*and 1 times before"):
        trained(small(data, nonfinite="skip", nonfinite_budget=1), tmp_path / "run")


def test_rollback_goes_on_past_the_rows_and_repeats_itself_after_a_crash(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(data, nonfinite="rollback")
    break_terms(monkeypatch, {1: 1, 4: 1})
    record = Record()
    trained(config, tmp_path / "run", record)
    newest = RunFolder(tmp_path / "run").newest()
    assert newest is not None and newest.step == 5
    # Back from step 1 to 0 (two steps of rows), then position 4 is step 2 itself: one more.
    assert newest.state["row_offset"] == 3
    assert newest.state["failures"] == 2
    assert "back to step 0" in newest.state["events"][0]
    assert "back to step 2" in newest.state["events"][1]
    assert record.texts["events.txt"].splitlines() == newest.state["events"]
    # A crash right after the second rollback: the newest checkpoint is from before it.
    with monkeypatch.context() as again:
        break_terms(again, {1: 1})
        made, _ = training(config, tmp_path / "crashed")
        assert next(made.evaluations()).step == 2
    with monkeypatch.context() as again:
        break_terms(again, {4: 1})
        trained(config, tmp_path / "crashed")
    assert files(tmp_path / "crashed") == files(tmp_path / "run")


def test_matching_that_refuses_nan_counts_as_not_finite(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(data, max_steps=1, micro_batches=1, evaluate_every=1)
    made, _ = training(config, tmp_path / "run")
    with torch.no_grad():
        next(made.state.model.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        next(made.evaluations())


def out_of_memory(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    terms = Stepper._loss_terms

    def failing(self: Stepper, images: Tensor, target: Tensor, normalizer: Tensor) -> Any:
        if images.shape[0] > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return terms(self, images, target, normalizer)

    monkeypatch.setattr(Stepper, "_loss_terms", failing)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The published form has no calibration, which looks at a whole micro-batch.
    def published(**trainer: Any) -> ExperimentConfig:
        tree = small(data, **trainer).model_dump(mode="json")
        tree["model"]["compat"] = "published"
        return ExperimentConfig.model_validate_json(json.dumps(tree))

    trained(published(micro_batch_size=1, micro_batches=4), tmp_path / "singles")
    out_of_memory(monkeypatch, largest=1)
    record = Record()
    made, _ = training(published(), tmp_path / "halved", record)
    next(made.evaluations())
    assert "out of memory with micro-batches of 2" in record.texts["events.txt"]
    # A resumed run starts with the next_divisor micro-batch at once.
    trained(published(), tmp_path / "halved")
    newest = RunFolder(tmp_path / "halved").newest()
    assert newest is not None and newest.state["micro_batch_size"] == 1
    assert len(newest.state["events"]) == 1
    assert files(tmp_path / "halved") == files(tmp_path / "singles")


def test_out_of_memory_with_one_image_ends_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_memory(monkeypatch, largest=0)
    with pytest.raises(OutOfMemoryForGoodError, match="a micro-batch of one image"):
        trained(small(data), tmp_path / "run")


def test_smaller_micro_batches_divide_the_configured_one() -> None:
    assert [next_divisor(size) for size in (2, 6, 9, 7)] == [1, 3, 3, 1]


def test_a_worker_that_stands_still_dumps_its_stacks_and_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from spikeseg.platform.train.faults.watchdog import Watchdog\n"
        "dog = Watchdog(Path(sys.argv[1]), attempt=3, rank=1, seconds=0.5)\n"
        "def stands_still():\n"
        "    time.sleep(60)\n"
        "dog.feed()\n"
        "stands_still()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert done.returncode == 1
    (stacks,) = list_hangs(tmp_path)
    assert stacks.name == "000003-1.txt"
    assert "stands_still" in stacks.read_text()


def test_the_watchdog_rests_while_nobody_asks_for_the_next_evaluation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed = {"now": False}

    def arm(*given: object, **named: object) -> None:
        armed["now"] = True

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    monkeypatch.setattr(
        faulthandler, "cancel_dump_traceback_later", lambda: armed.update(now=False)
    )
    made, _ = training(small(data, max_steps=2, evaluate_every=1), tmp_path / "run")
    for _ in made.evaluations():
        assert not armed["now"]


def test_the_last_scoring_is_watched_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed = {"now": False}
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda *_, **__: armed.update(now=True)
    )
    monkeypatch.setattr(
        faulthandler, "cancel_dump_traceback_later", lambda: armed.update(now=False)
    )
    monkeypatch.setattr("spikeseg.platform.train.tracked_training.start_sender", lambda *_: None)
    score, seen = Training.score, []

    def scoring(self: Training, split: str, on_batch: Any = None) -> Any:
        seen.append((split, armed["now"]))
        return score(self, split, on_batch)

    monkeypatch.setattr(Training, "score", scoring)
    train(Resolved(small(data, max_steps=1, evaluate_every=1), {}), storage=tmp_path, name="run")
    assert seen == [("val", True), ("test", True)]
    assert not armed["now"]


def test_a_watchdog_that_is_fed_leaves_nothing(data: Path, tmp_path: Path) -> None:
    trained(small(data, max_steps=2, step_timeout_s=300.0), tmp_path / "run")
    assert list_hangs(tmp_path / "run") == []
    assert not list((tmp_path / "run" / "stacks").iterdir())


def test_patience_ends_training_without_a_better_score(data: Path, tmp_path: Path) -> None:
    # The rate is far too small to move a single prediction.
    tree = small(data, max_steps=5, evaluate_every=1, patience=2).model_dump(mode="json")
    tree["optimizer"]["lr"] = 1e-12
    made, lines = training(ExperimentConfig.model_validate_json(json.dumps(tree)), tmp_path / "run")
    assert [item.step for item in made.evaluations()] == [1, 2, 3]
    assert made.finished
    assert lines[-1] == "no better val/mIoU in 2 evaluations: stopped"


def test_bf16_trains(data: Path, tmp_path: Path) -> None:
    lines = trained(small(data, max_steps=1, precision="bf16"), tmp_path / "run")
    assert any("val mIoU" in line for line in lines)


def test_fp16_is_refused_without_a_gpu(data: Path, tmp_path: Path) -> None:
    config = small(data, precision="fp16", device="cpu")
    with pytest.raises(ConfigError, match="fp16 scales gradients and needs a CUDA device"):
        preflight(Resolved(config, {}), tmp_path)


def test_the_parameter_table_is_shown_at_the_start(data: Path, tmp_path: Path) -> None:
    _, lines = training(small(data), tmp_path / "run")
    assert lines[0].split() == ["rule", "tensors", "values", "lr", "decay", "first", "name"]
    assert lines[1].startswith("* ")


def test_progress_names_loss_rate_memory_next_checkpoint_and_time_left(
    data: Path, tmp_path: Path
) -> None:
    lines = trained(small(data, checkpoint_every=3), tmp_path / "run")
    (line,) = [line for line in lines if line.startswith("step 2/5")]
    for part in ("loss ", "lr ", "images/s", " MB", "checkpoint at 3", "ETA "):
        assert part in line


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (ConfigError("x"), Decision.RAISE),
        (DataError("x"), Decision.RAISE),
        (BackendError("x"), Decision.RAISE),
        (NonFiniteError("x"), Decision.RAISE),
        (FencedError("x"), Decision.RAISE),
        (NoGoodCheckpointError("x"), Decision.RAISE),
        (OutOfMemoryForGoodError("x"), Decision.RAISE),
        (PreemptedError("x"), Decision.RETRY),
        (OSError(28, "No space left on device"), Decision.RETRY),
        (StorageAwayError("x"), Decision.RETRY),
        (RuntimeError("Connection closed by peer"), Decision.RETRY),
        (torch.OutOfMemoryError("x"), Decision.RETRY),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_permanent_failures_are_not_tried_again(error: Exception, decision: Decision) -> None:
    assert decide(error) is decision
