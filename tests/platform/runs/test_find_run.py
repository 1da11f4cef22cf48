"""A run is found by its name, a prefix, a folder, a checkpoint, an id, its sweep and number."""

import json
from pathlib import Path

import pytest
from run_folders import make_run, make_sweep, result_row

from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.runs.find_run import (
    find_mlflow_id,
    find_mlflow_ids,
    find_run,
    find_run_to_resume,
    resolve_initial_run,
)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    storage = tmp_path / "runs"
    make_run(storage / "camvid-1", started=1.0, run_id="a" * 32)
    make_run(storage / "camvid-12", started=3.0)
    make_run(storage / "shapes", started=2.0)
    (storage / "data" / "shapes").mkdir(parents=True)
    (storage / "data" / "shapes" / "manifest.json").write_text("{}")
    rows = [
        result_row(0, 50.0, 2.0),
        result_row(1, 60.0, 3.0),
        result_row(2, 60.0, 1.0),
        result_row(3, 90.0, 1.0, broken="energy/mJ <= 0.5"),
        result_row(4, "", "", "PRUNED"),
    ]
    make_sweep(storage / "sweep-toy", rows)
    return storage


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("shapes", "shapes"),
        ("sh", "shapes"),
        ("camvid-1", "camvid-1"),
        ("camvid-12", "camvid-12"),
        ("latest", "camvid-12"),
        ("a" * 32, "camvid-1"),
        ("3" * 32, "sweep-toy/3"),
        ("sweep-toy/1", "sweep-toy/1"),
        ("sweep/1", "sweep-toy/1"),
        ("sweep-toy/best", "sweep-toy/2"),
        ("sweep-toy/trials/0", "sweep-toy/0"),
    ],
)
def test_a_word_names_one_run(storage: Path, word: str, found: str) -> None:
    assert find_run(word, storage).word == found


def test_a_folder_is_found_wherever_it_lies(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(storage)
    other = tmp_path / "other"
    for word in ("camvid-1", "./camvid-1", str(storage / "camvid-1")):
        run = find_run(word, other)
        assert (run.folder, run.storage) == (storage / "camvid-1", storage)
    trial = find_run("sweep-toy/trials/3", other)
    assert (trial.kind, trial.word, trial.storage) == ("trial", "sweep-toy/3", storage)


def test_a_checkpoint_names_its_run_and_itself(storage: Path, tmp_path: Path) -> None:
    run = find_run("shapes/checkpoints/step-00000004", storage)
    assert (run.word, run.weights) == ("shapes", storage / "shapes/checkpoints/step-00000004")
    assert find_run("shapes", storage).weights == storage / "shapes"
    alone = tmp_path / "step-00000004"
    (storage / "shapes/checkpoints/step-00000004").rename(alone)
    assert find_run(str(alone), storage).weights == alone


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("camvid", "camvid: several runs begin so, give more of one name: camvid-12, camvid-1"),
        ("shaps", "shaps: no such run in STORAGE, did you mean 'shapes'?; there are: "),
        ("sweep-toy", "sweep-toy: is a sweep; name one of its trials: sweep-toy/best, or "),
        ("sweep-toy/7", "sweep-toy/7: no such trial; there are: 0, 1, 2, 3, 4"),
        ("f" * 32, f"{'f' * 32}: no run in STORAGE was sent to MLflow under this id"),
        ("nowhere/at/all", "nowhere/at/all: no such folder, and no such run in STORAGE"),
        ("data", "data: no such run in STORAGE"),
        ("data/shapes", "data/shapes: no such folder, and no such run in STORAGE"),
        ("", ": "),
    ],
)
def test_a_word_that_names_no_run_is_refused_with_what_there_is(
    storage: Path, word: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        find_run(word, storage)
    assert str(caught.value).startswith(sentence.replace("STORAGE", str(storage)))


def test_the_best_of_a_sweep_without_results_says_what_to_name(storage: Path) -> None:
    results = storage / "sweep-toy" / "results.json"
    results.write_text(json.dumps([result_row(4, "", "", "PRUNED")]))
    with pytest.raises(ConfigError, match="no trial finished within the sweep's constraints"):
        find_run("sweep-toy/best", storage)
    results.unlink()
    with pytest.raises(ConfigError, match="has no results yet; name a trial by its number"):
        find_run("sweep-toy/best", storage)


def test_latest_names_nothing_in_an_empty_storage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"latest: no such run in .*; there are: none"):
        find_run("latest", tmp_path / "none")


def test_a_run_and_a_sweep_are_continued_by_their_own_verbs(storage: Path) -> None:
    assert find_run_to_resume("sh", storage, kind="run") == ("shapes", storage)
    assert find_run_to_resume("sw", storage, kind="sweep") == ("sweep-toy", storage)
    assert find_run_to_resume("latest", storage, kind="sweep") == ("sweep-toy", storage)
    address = "s3://bucket/runs/x"
    assert find_run_to_resume(address, storage, kind="run") == (address, storage)
    for word, kind, message in (
        ("sweep-toy", "run", "is a sweep, which is continued by: spikeseg sweep --resume"),
        ("sweep-toy/1", "run", "is a trial, which its sweep continues"),
        ("shapes", "sweep", "is a run, and a sweep is needed here"),
        ("shapes/checkpoints/step-00000004", "run", "is a checkpoint; a run goes on from its"),
    ):
        with pytest.raises(ConfigError, match=f"^--resume {word}: {message}"):
            find_run_to_resume(word, storage, kind=kind)  # pyright: ignore[reportArgumentType]


def test_initial_weights_are_named_by_a_run(storage: Path, tmp_path: Path) -> None:
    file = tmp_path / "latest"
    given = ["seed=1", "init.segmentor=latest", "init.backbone=latest", "init.segmentor=typo.pth"]
    assert resolve_initial_run(given, storage) == (
        "seed=1",
        f"init.segmentor={storage / 'camvid-12'}",
        "init.backbone=latest",
        "init.segmentor=typo.pth",
    )
    file.write_text("")
    assert resolve_initial_run([f"init.segmentor={file}"], storage) == (f"init.segmentor={file}",)
    with pytest.raises(ConfigError, match="is a sweep; name one of its trials"):
        resolve_initial_run(["init.segmentor=sweep-toy"], storage)
    with pytest.raises(ConfigError, match=r"typo.*camvid-12"):
        resolve_initial_run(["init.segmentor=typo"], storage)


def test_an_id_in_mlflow_is_asked_for_where_the_record_is_there(storage: Path) -> None:
    kinds = ("run",)
    assert find_mlflow_id("f" * 32, storage, kinds=kinds) == ("f" * 32, storage)
    with pytest.raises(ConfigError, match="shapes: not in MLflow yet; send it there first"):
        find_mlflow_id("shapes", storage, kinds=kinds)


def test_folders_of_two_storages_are_refused_where_one_database_is_read(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_run(tmp_path / "other" / "one", started=1.0)
    monkeypatch.setattr(
        "spikeseg.platform.tracking.upload.upload_offset.SentOffset",
        lambda journal, uri: type("Sent", (), {"run_id": "b" * 32}),
    )
    assert find_mlflow_ids(["shapes", "camvid-1"], storage, kinds=("run",)) == (
        ["b" * 32, "b" * 32],
        storage,
    )
    with pytest.raises(ConfigError, match="runs of one storage at a time"):
        find_mlflow_ids(["shapes", str(other)], storage, kinds=("run",))


def test_what_is_continued_lies_in_the_storage(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    make_run(other / "shapes", started=2.0)
    make_sweep(other / "sweep-toy", [])
    for word in ("../other/shapes", str(other / "shapes"), f"{other}/../other/shapes"):
        monkeypatch.chdir(storage)
        with pytest.raises(ConfigError, match=f"outside of the storage .*--storage {other}$"):
            find_run_to_resume(word, storage, kind="run")
    with pytest.raises(ConfigError, match=f"outside of the storage .*--storage {other}$"):
        find_run_to_resume(str(other / "sweep-toy"), storage, kind="sweep")
    monkeypatch.chdir(other)
    # From this folder it names nothing, whatever lies beside the storage.
    with pytest.raises(ConfigError, match="no such folder"):
        find_run_to_resume("../other/../runs/none", storage, kind="run")
    assert find_run_to_resume("../runs/shapes", storage, kind="run")[0] == "shapes"
    assert find_run(str(other / "shapes"), storage).word == "shapes", "to be read it may lie there"


@pytest.mark.parametrize(
    "address", ["file:///tmp/runs/..", "file:///tmp/a%2F..", "s3://bucket/<b>", "s3://b/\x1b[2J"]
)
def test_an_address_ends_in_a_name(storage: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"--resume: got .*a name has at most 240 bytes"):
        find_run_to_resume(address, storage, kind="run")
    with pytest.raises(ConfigError, match="a sweep is continued in its storage"):
        find_run_to_resume(address, storage, kind="sweep")


@pytest.mark.parametrize("word", ["\x1b[31mx", "a\nb", "a\0b", "x" * 300], ids=range(4))
def test_a_word_that_is_no_text_is_refused_on_one_line(storage: Path, word: str) -> None:
    for call in (
        lambda: find_run(word, storage),
        lambda: find_mlflow_id(word, storage, kinds=("run",)),
        lambda: find_run_to_resume(word, storage, kind="run"),
        lambda: resolve_initial_run([f"init.segmentor={word}"], storage),
    ):
        with pytest.raises(ConfigError, match="got '") as caught:
            call()
        assert str(caught.value).isprintable() and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", "{}", "got"),
        ("results.json", "[5]", "0: got '5'"),
        ("results.json", '[{"state": "COMPLETE"}]', "0: val/mIoU: got 'None'"),
        ("plan.json", "[]", "got"),
        ("plan.json", '{"recipe": {"objectives": [{"metric": 1}]}}', "recipe.objectives.0.metric"),
        ("results.json", "\udcff", "is damaged"),
    ],
)
def test_results_of_other_types_are_refused_with_file_and_key(
    storage: Path, file: str, content: str, message: str
) -> None:
    path = storage / "sweep-toy" / file
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        find_run("sweep-toy/best", storage)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_link_to_a_run_is_that_run(storage: Path, tmp_path: Path) -> None:
    """Under its own name, and with its own storage's database, wherever the link lies."""
    run = make_run(storage / "linked-run")
    (storage / "favourite").symlink_to(run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far").symlink_to(run)
    for word in ("favourite", str(storage / "favourite"), str(elsewhere / "far")):
        found = find_run(word, storage)
        assert (found.word, found.storage.resolve()) == ("linked-run", storage.resolve())
        assert find_run_to_resume(word, storage, kind="run")[0] == "linked-run"


def test_a_run_whose_folder_lies_on_another_disk_keeps_its_name(
    storage: Path, tmp_path: Path
) -> None:
    big = make_run(tmp_path / "big" / "data-7")
    (storage / "mine").symlink_to(big)
    found = find_run("mine", storage)
    assert found.folder == storage / "mine"
    with pytest.raises(ConfigError, match=f"--storage {big.parent}"):
        find_run_to_resume("mine", storage, kind="run")
