"""A training starts from given weights, once; what does not fit is refused before it starts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import experiment, pack_shapes
from torch import Tensor, nn

from spikeseg.model.published.classifier import build_classifier
from spikeseg.model.published.keys import to_published_name
from spikeseg.model.published.weights import convert_published, write_published
from spikeseg.model.segmentor import build_uncalibrated_segmentor
from spikeseg.platform.checkpoint.run_folder import RunFolder
from spikeseg.platform.cluster.worker_group import OneWorker
from spikeseg.platform.config.recipes import ConfigError, Resolved
from spikeseg.platform.config.schema import ExperimentConfig
from spikeseg.platform.train.loop import Training
from spikeseg.platform.train.preparation import load_initial_weights
from spikeseg.platform.train.trainer import resume_training, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shapes(tmp_path_factory.mktemp("shapes") / "data")


def small(data: Path, init: dict[str, str], **trainer: Any) -> ExperimentConfig:
    given = {"max_steps": 2, "micro_batches": 1, "micro_batch_size": 2, "evaluate_every": 1}
    tree = json.loads(experiment(data, **{**given, **trainer}).model_dump_json())
    return ExperimentConfig.model_validate_json(json.dumps({**tree, "init": init}))


def imagenet_file(config: ExperimentConfig, folder: Path) -> Path:
    """A checkpoint of the backbone's ImageNet form, in published keys."""
    torch.manual_seed(7)
    model = build_classifier(
        config.model.backbone, config.model.neuron, num_classes=5, distilled=True
    )
    write_published(model, folder / "imagenet.pth", bare=True)
    return folder / "imagenet.pth"


def segmentor_file(config: ExperimentConfig, folder: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(8)
    model = build_uncalibrated_segmentor(config.model)
    write_published(model, folder / "segmentor.pth")
    return folder / "segmentor.pth", model


def started(config: ExperimentConfig, folder: Path) -> tuple[Training, list[str]]:
    run = RunFolder(folder)
    run.claim()
    lines: list[str] = []
    training = Training(config, run, group=OneWorker(), recorder=None, progress=lines.append)
    training.start()
    return training, lines


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {to_published_name(k): v.clone() for k, v in model.state_dict().items()}


def test_a_training_steps_from_an_imagenet_backbone(data: Path, tmp_path: Path) -> None:
    file = imagenet_file(small(data, {}), tmp_path)
    given = torch.load(file, weights_only=True)["model"]
    training, lines = started(small(data, {"backbone": str(file)}), tmp_path / "run")
    drawn, _ = started(small(data, {}), tmp_path / "drawn")
    before = weights(training.state.model)
    for key, value in before.items():
        if key.startswith("backbone."):
            assert torch.equal(value, given[key.removeprefix("backbone.")]), key
    # What the file does not hold is what the seed draws, brought to life on another backbone.
    key = "decode_head.query_feat.weight"
    assert torch.equal(before[key], weights(drawn.state.model)[key])
    assert any("initial weights" in line and f"{len(given) - 4} matched" in line for line in lines)
    for _ in training.evaluations():
        pass
    after = weights(training.state.model)
    moved = [
        k for k in before if k.startswith("backbone.") and not torch.equal(before[k], after[k])
    ]
    assert any(key.endswith("conv.weight") for key in moved)


@pytest.mark.parametrize("form", ["file", "converted"])
def test_a_training_starts_from_a_whole_segmentor(data: Path, tmp_path: Path, form: str) -> None:
    path, model = segmentor_file(small(data, {}), tmp_path)
    if form == "converted":
        convert_published(path, tmp_path / "converted", num_heads=2)
        path = tmp_path / "converted"
    training, _ = started(small(data, {"segmentor": str(path)}), tmp_path / "run")
    expected, found = weights(model), weights(training.state.model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_resumed_training_does_not_load_them_again(data: Path, tmp_path: Path) -> None:
    path, _ = segmentor_file(small(data, {}), tmp_path)
    config = small(data, {"segmentor": str(path)})
    first, _ = started(config, tmp_path / "run")
    next(first.evaluations())
    assert first._writer is not None
    first._writer.close()
    reached = weights(first.state.model)
    path.unlink()
    again, _ = started(config, tmp_path / "run")
    assert again.step == 1
    found = weights(again.state.model)
    assert all(torch.equal(reached[key], found[key]) for key in reached)


@pytest.mark.slow
def test_a_run_goes_on_from_its_own_kind_of_checkpoint(data: Path, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    outcome = train(Resolved(small(data, {}), {}), storage=storage, name="first")
    config = small(data, {"segmentor": str(outcome.folder)})
    training, _ = started(config, tmp_path / "second")
    best = RunFolder(outcome.folder).at(outcome.best_step).evaluated()
    found = training.state.model.state_dict()
    assert all(torch.equal(best[key], found[key]) for key in best)
    # Its backbone alone goes into a network of another decoder and other classes.
    tree = json.loads(small(data, {"backbone": str(outcome.folder)}).model_dump_json())
    tree["model"] |= {"num_classes": 4, "decoder": "fpn"}
    other = ExperimentConfig.model_validate_json(json.dumps(tree))
    model = build_uncalibrated_segmentor(other.model)
    load_initial_weights(model, other)
    taken = [key for key in model.state_dict() if key.startswith("backbone.")]
    assert taken and all(torch.equal(best[key], model.state_dict()[key]) for key in taken)
    # A finished run is left alone though its weights are gone from where they were.
    again = train(Resolved(config, {}), storage=storage, name="second")
    (storage / "first").rename(tmp_path / "moved")
    assert resume_training("second", storage=storage).metrics == again.metrics


def test_a_rule_of_rate_zero_keeps_the_backbone_as_it_was(data: Path, tmp_path: Path) -> None:
    tree = json.loads(small(data, {}).model_dump_json())
    tree["optimizer"]["rules"] = [{"match": "backbone.*", "lr": 0}]
    training, _ = started(ExperimentConfig.model_validate_json(json.dumps(tree)), tmp_path / "run")
    before = {key: value.clone() for key, value in training.state.model.named_parameters()}
    for _ in training.evaluations():
        pass
    after = dict(training.state.model.named_parameters())
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved and not any(key.startswith("backbone.") for key in moved)


def refused(config: ExperimentConfig, storage: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        train(Resolved(config, {}), storage=storage, name="run")
    assert not (storage / "run").exists()
    return str(caught.value)


@pytest.mark.parametrize("key", ["backbone", "segmentor"])
def test_weights_that_do_not_fit_are_refused_before_work_starts(
    data: Path, tmp_path: Path, key: str
) -> None:
    nowhere = tmp_path / "nowhere.pth"
    assert refused(small(data, {key: str(nowhere)}), tmp_path / "a") == (
        f"init.{key}: {nowhere}: no such file"
    )
    (tmp_path / "text.pth").write_text("not a checkpoint")
    message = refused(small(data, {key: str(tmp_path / "text.pth")}), tmp_path / "b")
    assert message.startswith(f"init.{key}: ") and "text.pth: not a checkpoint" in message
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    message = refused(small(data, {key: str(tmp_path / "linear.pth")}), tmp_path / "c")
    assert "linear.pth" in message and "missing" in message and "\n" not in message
    (tmp_path / "empty").mkdir()
    message = refused(small(data, {key: str(tmp_path / "empty")}), tmp_path / "d")
    assert message.startswith(f"init.{key}: {tmp_path / 'empty'}: ")


def test_another_number_of_classes_or_width_is_refused_with_both(
    data: Path, tmp_path: Path
) -> None:
    tree = json.loads(small(data, {}).model_dump_json())
    tree["model"]["num_classes"] = 4
    other = ExperimentConfig.model_validate_json(json.dumps(tree))
    path, _ = segmentor_file(other, tmp_path)
    message = refused(small(data, {"segmentor": str(path)}), tmp_path / "runs")
    assert "init.segmentor" in message and "num_classes is 9 in the model and 4" in message
    tree["model"]["backbone"]["embed_dims"] = [4, 4, 8, 16]
    wide = ExperimentConfig.model_validate_json(json.dumps(tree))
    file = imagenet_file(wide, tmp_path)
    message = refused(small(data, {"backbone": str(file)}), tmp_path / "runs")
    assert "init.backbone" in message and "(8, 8, 3, 3) in the model and (16, 8, 3, 3)" in message


def test_backbone_and_segmentor_are_not_given_together(data: Path) -> None:
    with pytest.raises(ValueError, match="backbone must not be given beside segmentor"):
        small(data, {"backbone": "a.pth", "segmentor": "b.pth"})
