"""Models of runs in MLflow, each once: signature, example, metrics and, if asked, a version."""

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact_files import send_model_files
from ..recorded_files import UnsendableError, named_recorded_file

MODEL_TAG = "spikeseg.model"
CHAMPION = "champion"
_LOADER = "spikeseg.platform.runs.mlflow_flavour"
_METRICS = ("val/mIoU", "test/mIoU", "energy/mJ", "snn/firing_rate")


def send_model(client: Any, run_id: str, record: Mapping[str, Any], folder: Path) -> None:
    """Log a run's model, unless MLflow has it whole; found again by a tag, it is never doubled.

    Args:
        client: MLflow's client.
        run_id: The run.
        record: The journal's record of the model.
        folder: The run's folder, in which the model's lies.

    Raises:
        UnsendableError: Where a file of it is gone or damaged, or the server knows no models.
    """
    from mlflow.exceptions import MlflowException

    run = client.get_run(run_id)
    identity = f"{run_id}:{record['step']}"
    try:
        model = _find(client, run.info.experiment_id, identity)
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":
            raise
        raise UnsendableError("this MLflow server is of version 2 and knows no models") from error
    if model is None:
        model = client.create_logged_model(
            run.info.experiment_id,
            name=record["name"],
            source_run_id=run_id,
            tags={MODEL_TAG: identity, **record["tags"]},
            params=record["params"],
            model_type="segmentation",
        )
    if str(model.status) != "READY":
        with _saved(model, run_id, record, folder) as saved:
            send_model_files(client, model, saved)
        _link(client, run, record, model.model_id)
        client.finalize_logged_model(model.model_id, "READY")
    if record["register"]:
        _register(client, record["register"], run_id, model)


def _find(client: Any, experiment: str, identity: str) -> Any:
    models = client.search_logged_models([experiment], f"tags.`{MODEL_TAG}` = '{identity}'")
    # One that is whole comes before one that a broken connection left.
    return min(models, key=lambda model: str(model.status) != "READY", default=None)


@contextlib.contextmanager
def _saved(model: Any, run_id: str, record: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """The model as MLflow keeps it: `MLmodel`, requirements, example, and our folder as data."""
    from importlib.metadata import PackageNotFoundError, version

    import mlflow
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature
    from mlflow.types import Schema, TensorSpec

    requirements = [f"mlflow=={mlflow.__version__}"]
    with contextlib.suppress(PackageNotFoundError):
        requirements.append(f"spikeseg=={version('spikeseg')}")
    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))
    labels = TensorSpec(np.dtype(np.uint8), (-1, -1, -1))
    with tempfile.TemporaryDirectory(prefix="spikeseg-model-") as temporary:
        data = Path(temporary) / "model"
        data.mkdir()
        for name in record["files"]:
            with named_recorded_file(folder, f"{record['folder']}/{name}", name) as file:
                (data / name).write_bytes(file.read_bytes())
        example = np.array(json.loads((data / record["example"]).read_text()), np.uint8)[None]
        saved = Path(temporary) / "saved"
        with _without_infos("mlflow.pyfunc"):
            mlflow.pyfunc.save_model(
                saved,
                loader_module=_LOADER,
                data_path=str(data),
                mlflow_model=Model(run_id=run_id, model_id=model.model_id),
                signature=ModelSignature(Schema([images]), Schema([labels])),
                input_example=example,
                pip_requirements=requirements,
                metadata={**record["params"], **record["tags"]},
            )
        yield saved


@contextlib.contextmanager
def _without_infos(name: str) -> Iterator[None]:
    """While the block runs, a logger says warnings and errors alone."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(max(logging.WARNING, before))
    try:
        yield
    finally:
        logger.setLevel(before)


def _link(client: Any, run: Any, record: Mapping[str, Any], model_id: str) -> None:
    """Make the model an output of its run, and link scores to it and to the data's digest."""
    from mlflow.entities import LoggedModelOutput, Metric

    run_id = run.info.run_id
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    if model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, record["step"])])
    linked = []
    for name in _METRICS:
        if name not in run.data.metrics:
            continue
        # The very points that the run has: others would stand beside them in its curve.
        points = client.get_metric_history(run_id, name)
        split = "test" if name.startswith("test/") else "val"
        # The test split is scored once, at the end.
        points = [p for p in points if p.step == record["step"] or split == "test"]
        linked += [
            Metric(
                *(p.key, p.value, p.timestamp, p.step),
                model_id=model_id,
                dataset_name=f"{record['dataset']}-{split}",
                dataset_digest=record["digests"].get(split),
                run_id=run_id,
            )
            for p in points[-1:]
        ]
    if linked:
        client.log_batch(run_id, metrics=linked)


def _register(client: Any, name: str, run_id: str, model: Any) -> None:
    """Make the model a version under a name, once, and the one with the alias `champion`."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    # Versions keep no id of their model in a database.
    known = [v for v in versions if v.tags.get(MODEL_TAG) == model.model_id]
    version = (
        known[0]
        if known
        else client.create_model_version(
            # Not `models:/...`: that would be looked up in the process's own tracking address.
            name,
            model.artifact_location,
            run_id=run_id,
            tags={MODEL_TAG: model.model_id},
            model_id=model.model_id,
        )
    )
    client.set_registered_model_alias(name, CHAMPION, version.version)
