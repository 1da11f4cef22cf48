"""A tiny finished training, tracked in sqlite."""

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from spikeseg.datasets.layouts.shapes import Shapes, ShapesOptions
from spikeseg.datasets.packed.pack import pack
from spikeseg.platform.config.recipes import load_experiment
from spikeseg.platform.tracking.tracking_uri import tracking_uri
from spikeseg.platform.train.trainer import train

TINY = (
    "trainer.workers=0",
    "trainer.max_steps=4",
    "trainer.evaluate_every=2",
    "trainer.log_every=1",
    "trainer.micro_batch_size=2",
    "trainer.energy_images=2",
    "optimizer.warmup_steps=0",
    "data.transform.crop=[32, 32]",
    "tracking.images=2",
    "tracking.system_interval=1.0",
)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        storage: Folder of all runs.
        folder: The run's folder.
        run_id: Its id in MLflow.
        client: MLflow's client for its storage.
    """

    storage: Path
    folder: Path
    run_id: str
    client: MlflowClient


def train_tiny(storage: Path) -> TrainedRun:
    """Four steps on generated shapes, in this process."""
    data = storage / "shapes"
    made = Shapes(ShapesOptions(size=(32, 32), train=12, val=4, test=3, seed=3))
    pack("shapes", made, Path(), data, progress=lambda done, total: None)
    resolved = load_experiment("shapes_tiny", [f"data.path={data}", *TINY])
    outcome = train(resolved, storage=storage, name="tiny")
    client = MlflowClient(tracking_uri(storage))
    experiment = client.get_experiment_by_name(resolved.config.tracking.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return TrainedRun(storage, outcome.folder, run.info.run_id, client)
