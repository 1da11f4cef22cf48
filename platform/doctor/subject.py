"""What the doctor looks at: an experiment or a sweep, its storage, a head, this machine."""

import functools
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ...datasets.packed.reader import PackedDataset
from ...datasets.spec import DataError
from ..cluster.head_nodes import probe_nodes
from ..cluster.job_submission import choose_dashboard
from ..config.errors import ConfigError
from ..config.recipes import Resolved, load_experiment, recipe_names
from ..config.schema import ExperimentConfig
from ..config.yaml_source import read_yaml
from ..search.sweep_file.plan import SweepPlan, load_sweep, sweep_names
from ..tracking.tracking_uri import tracking_uri
from .machine import Machine, read_machine
from .step_probe import StepMeasurement, measure_step

_MOST_CORNERS = 256
_NODE_S = 25.0


@dataclass(frozen=True)
class Subject:
    """What the checks look at; what several of them need is computed once.

    Attributes:
        storage: Folder of all runs, absolute.
        machine: Readings of this machine.
        environment: Variables of this process.
        resolved: The experiment, or the base of the sweep; None where none was named.
        plan: The sweep; None where none was named.
        refusal: Why the recipe, a field or the sweep cannot be read; empty where it can.
        address: Dashboard of a head; None where none was named.
        concurrency: Trials at once that were asked for; None for as many as fit.
    """

    storage: Path
    machine: Machine
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    resolved: Resolved | None = None
    plan: SweepPlan | None = None
    refusal: str = ""
    address: str | None = None
    concurrency: int | None = None

    @property
    def config(self) -> ExperimentConfig | None:
        """The experiment, or the base of the sweep."""
        return None if self.resolved is None else self.resolved.config

    @property
    def processes(self) -> int:
        """Processes that train at once on this machine, at least 1."""
        if self.environment.get("RAY_ADDRESS", "") not in ("", "local"):
            return 1  # The others may be on any node.
        if self.plan is not None:
            workers = self.plan.recipe.workers_per_trial
            wanted = self.concurrency or self.plan.recipe.concurrency
            share = self.plan.recipe.resources.cpu * workers
            fitting = max(1, int(self.machine.usable_cpus / share)) if share else 1
            return workers * (wanted or min(fitting, self.plan.trials))
        return 1 if self.config is None else max(1, self.config.trainer.workers)

    @functools.cached_property
    def largest(self) -> Resolved | None:
        """The experiment that needs most: of a sweep, the corner of its space with most work."""
        if self.plan is None or self.resolved is None:
            return self.resolved
        points = list(islice(self.plan.recipe.space.corner_combinations(), _MOST_CORNERS))
        experiments = []
        for point in [*points, *self.plan.points]:
            try:
                experiments.append(self.plan.experiment(point))
            except ConfigError:
                continue
        return max(experiments, key=lambda item: estimate_work(item.config), default=self.resolved)

    @functools.cached_property
    def dataset(self) -> PackedDataset | str:
        """The packed data, opened; why it cannot be opened where it cannot."""
        if self.config is None:
            return "no recipe was named"
        try:
            return PackedDataset.open(self.config.data.path)
        except (DataError, ValueError, OSError) as error:
            return str(error)

    @functools.cached_property
    def parameters(self) -> int | None:
        """Parameters of the largest network; None where it cannot be built."""
        if self.largest is None:
            return None
        import torch

        from ...model.segmentor import build_uncalibrated_segmentor

        try:
            with torch.device("meta"):
                model = build_uncalibrated_segmentor(self.largest.config.model)
        except ValueError:
            return None
        return sum(parameter.numel() for parameter in model.parameters())

    @functools.cached_property
    def step(self) -> StepMeasurement | str:
        """One step of the largest experiment, measured; why it could not be where it could not."""
        if self.largest is None:
            return "no recipe was named"
        return measure_step(self.largest)

    @functools.cached_property
    def node_reports(self) -> list[dict[str, Any]] | str:
        """What each node of the head sees; why that is not known where it is not."""
        if self.address is None:
            return "no head was named (--address)"
        uri = tracking_uri(self.storage)
        tracker = uri if uri.startswith(("http://", "https://")) else ""
        try:
            self.storage.mkdir(parents=True, exist_ok=True)
            return probe_nodes(
                choose_dashboard(self.address), storage=self.storage, tracker=tracker, limit=_NODE_S
            )
        except (ValueError, RuntimeError, OSError) as error:
            return str(error)

    @functools.cached_property
    def free_disk(self) -> shutil._ntuple_diskusage:
        """Room of the file system that the storage lies on, or will lie on."""
        folder = self.storage
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder)


def estimate_work(config: ExperimentConfig) -> float:
    """A number that grows with time and memory of a step: T, D, batch, crop, width."""
    height, width = config.data.transform.crop
    neuron, backbone = config.model.neuron, config.model.backbone
    dims: Sequence[int] = getattr(backbone, "embed_dims", (1,))
    batch = config.trainer.micro_batch_size * neuron.timesteps
    # More levels cost no operation of a step, and more bits of what is stored between layers.
    return batch * height * width * sum(dims) * (1 + math.log2(neuron.levels) / 100)


def read_subject(
    name: str | None,
    overrides: Sequence[str],
    *,
    storage: Path,
    address: str | None = None,
    **how: Any,
) -> Subject:
    """Read what was named; what cannot be read becomes the subject's `refusal`.

    Args:
        name: Recipe or sweep: a shipped name or a YAML file; None for the machine alone.
        overrides: Items `field=value`.
        storage: Folder of all runs.
        address: Dashboard of a head.
        **how: Further fields of `Subject`.
    """
    found: dict[str, Any] = {}
    try:
        if name is not None and is_sweep(name):
            plan = load_sweep(name, overrides)
            found = {"plan": plan, "resolved": plan.base}
        elif name is not None:
            found = {"resolved": load_experiment(name, overrides)}
    except ValueError as error:
        found = {"refusal": str(error)}
    how.setdefault("machine", read_machine())
    return Subject(storage=storage.absolute(), address=address, **found, **how)


def is_sweep(name: str) -> bool:
    """Whether a name is that of a sweep: shipped, or a YAML file with a space or objectives."""
    if name in sweep_names() and name not in recipe_names():
        return True
    if not Path(name).is_file():
        return False
    content, _ = read_yaml(Path(name))
    return isinstance(content, dict) and bool({"space", "objectives"} & set(content))
