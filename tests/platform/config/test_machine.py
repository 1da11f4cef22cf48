"""Weights are used on any machine: device, backend and threads are no part of an experiment."""

import os

import pytest

from spikeseg.platform.config.machine import adapt_to_machine
from spikeseg.platform.config.recipes import load_experiment

TRAINED = (
    "data.path=d",
    "trainer.device=cuda",
    "model.neuron.backend=cuda",
    "trainer.precision=fp16",
    "trainer.threads=64",
)


def test_what_was_trained_elsewhere_runs_on_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    resolved = load_experiment("shapes_tiny", TRAINED)
    adapted = adapt_to_machine(resolved).config
    assert adapted.trainer.device == "auto"
    assert adapted.model.neuron.backend == "auto"
    assert 1 <= adapted.trainer.threads <= 2
    # The experiment itself stays.
    assert adapted.model.num_classes == resolved.config.model.num_classes
    assert adapted.optimizer == resolved.config.optimizer


def test_what_a_person_typed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    resolved = load_experiment("shapes_tiny", TRAINED)
    adapted = adapt_to_machine(resolved, ["trainer.device", "trainer.threads"]).config
    assert adapted.trainer.device == "cuda"
    assert adapted.trainer.threads == 64
    assert adapted.model.neuron.backend == "auto"


def test_fewer_threads_than_there_are_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    resolved = load_experiment("shapes_tiny", ["data.path=d", "trainer.threads=1"])
    assert adapt_to_machine(resolved).config.trainer.threads == 1
