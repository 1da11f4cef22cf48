"""Secrets in code are hidden where form or name tells them, and other code stays as it is."""

from pathlib import Path

import pytest
from planted_secrets import PLANTED, Planted
from source_tree import ROOMS, tracked

from spikeseg.platform.config.code_redaction import scrubbed_code

# Files whose own subject are names of secrets.
ABOUT_SECRETS = {
    "datasets/packed/storage.py",
    "platform/cluster/head_checks.py",
    "platform/cluster/head_nodes.py",
    "platform/cluster/job_submission.py",
    "platform/cluster/loopback.py",
    "platform/cluster/node_probe.py",
    "platform/cluster/session.py",
    "platform/cluster/token.py",
    "platform/config/recipes.py",
    "platform/config/redaction.py",
    "platform/config/code_redaction.py",
    "platform/doctor/cluster_checks.py",
    "platform/tracking/job_names.py",
    "platform/tracking/mlflow_server.py",
    # MLflow's own `orderByKey` and `viewStateShareKey`.
    "platform/tracking/pages/shared_view.py",
    "platform/tracking/tracking_uri.py",
}
INNOCENT = (
    "tokens = tokenizer(text)",
    "def attend(query, key, value, *, key_padding_mask=None):",
    'sorted(rows, key="name")',
    'torch.load("weights.pt", map_location="cpu")',
    'database = sqlite3.connect("mlflow.db")',
    'os.environ["OMP_NUM_THREADS"] = "1"',
    'DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"',
    'image = "registry.test/org/image:tag@sha256:0123456789abcdef"',
    'PATH = "/data/Cityscapes/leftImg8bit_trainvaltest/train/aachen"',
    "class Spike2FormerSegmentorConfiguration1:",
    'compass = bypass = "north"  # passed by the caller',
    'url = "https://docs.test/stable/index.html?page=2"',
    "    pass",
    "loss.backward()  # the key of each query",
    '"""Keys and values of the attention, (B, N, C)."""',
)


def as_difference(planted: Planted, sign: str = "+") -> str:
    name = planted.file
    head = f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n"
    lines = "".join(f"{sign}{line}\n" for line in planted.lines)
    return f"{head}@@ -0,0 +1,{len(planted.lines)} @@\n{lines}"


def test_there_are_forty_kinds_and_few_that_nobody_can_recognise() -> None:
    assert len({planted.kind for planted in PLANTED}) == len(PLANTED) >= 40
    assert sum(not planted.recognised for planted in PLANTED) <= 2


@pytest.mark.parametrize("sign", ["+", "-", " "])
@pytest.mark.parametrize(
    "planted",
    [planted for planted in PLANTED if planted.recognised],
    ids=lambda planted: planted.kind,
)
def test_a_planted_secret_is_hidden(planted: Planted, sign: str) -> None:
    text = as_difference(planted, sign)
    scrubbed = scrubbed_code(text)
    assert not [secret for secret in planted.secrets if secret in scrubbed], scrubbed
    assert len(scrubbed.splitlines()) == len(text.splitlines())
    assert scrubbed_code(scrubbed) == scrubbed


@pytest.mark.parametrize("suffix", ["py", "yaml"])
@pytest.mark.parametrize("line", INNOCENT)
def test_innocent_code_stays(line: str, suffix: str) -> None:
    text = f"diff --git a/x.{suffix} b/x.{suffix}\n@@ -0,0 +1 @@\n+{line}\n"
    if suffix == "py":
        assert scrubbed_code(text) == text


def test_our_own_code_stays(repository: Path) -> None:
    names = [
        name
        for name in tracked(repository, *ROOMS)
        if name.endswith((".py", ".yaml", ".json", ".cuh", ".cu", ".h"))
        # Recorded curves, whose lines are too long to be looked through.
        and not name.startswith("jobs/benchmark/curves/")
    ]
    assert len(names) > 200
    changed = set()
    for name in names:
        text = f"diff --git a/{name} b/{name}\n{(repository / name).read_text()}"
        if scrubbed_code(text) != text:
            changed.add(name)
    assert changed <= ABOUT_SECRETS


def test_a_name_in_one_file_says_nothing_of_the_next() -> None:
    first = "diff --git a/a.yaml b/a.yaml\n@@ -0,0 +1 @@\n+passwords:\n"
    text = first + "diff --git a/b.yaml b/b.yaml\n@@ -0,0 +1 @@\n+  - camvid\n"
    assert scrubbed_code(text) == text


def test_yaml_that_follows_a_secret_stays() -> None:
    text = "diff --git a/a.yaml b/a.yaml\n+auth:\n+  user: bob\n+crop: 48\n+name: tiny\n"
    assert scrubbed_code(text) == text.replace("bob", "[hidden]")
