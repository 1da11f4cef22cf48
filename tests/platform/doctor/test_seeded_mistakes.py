"""Each mistake of the table in docs/doctor.md is found by the check that the table names.

A mistake is made for real where a test may make it (fields, data, files, variables, limits of this
process); readings of the machine that a test cannot change are replaced.
"""

import os
import re
import resource
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fake_head import Head, dashboard
from mistakes import Bench, RepeatedShapes, look, pack_good

from spikeseg.jobs import data as data_verbs
from spikeseg.platform.doctor import software_checks
from spikeseg.platform.doctor.catalog import CHECKS
from spikeseg.platform.doctor.machine import read_machine
from spikeseg.platform.doctor.run_checks import run_checks
from spikeseg.platform.doctor.step_probe import StepMeasurement
from spikeseg.platform.doctor.subject import Subject
from spikeseg.platform.tracking.code_state import code_digest

Patch = pytest.MonkeyPatch
VARIABLES = ("MLFLOW_TRACKING_URI", "SPIKESEG_STUDY", "RAY_ADDRESS", "RAY_TMPDIR", "RAY_AUTH_TOKEN")


class Mistake(NamedTuple):
    """A mistake of the table.

    Attributes:
        name: As docs/doctor.md names it.
        make: Makes it; returns what the doctor looks at.
        check: The check that finds it.
        state: What that check says.
        words: Part of its sentence.
    """

    name: str
    make: Callable[[Bench, Patch], Subject]
    check: str
    state: str
    words: str


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_good(tmp_path_factory.mktemp("packed") / "shapes")


@pytest.fixture
def bench(data: Path, tmp_path: Path, monkeypatch: Patch) -> Bench:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*VARIABLES, "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return Bench(data, tmp_path)


def fields(*items: str, **how: Any) -> Callable[[Bench, Patch], Subject]:
    """A mistake in fields of the request."""
    return lambda bench, patch: bench.subject(*items, **how)


def machine(**readings: Any) -> Callable[[Bench, Patch], Subject]:
    """A machine that grants too little."""
    return lambda bench, patch: bench.subject(machine=readings)


def variable(name: str, value: str) -> Callable[[Bench, Patch], Subject]:
    """A variable of the process that is in the way."""

    def make(bench: Bench, patch: Patch) -> Subject:
        patch.setenv(name, value.replace("FOLDER", str(bench.folder)))
        return bench.subject(environment={name: os.environ[name]})

    return make


def installed(name: str, version: str | None) -> Callable[[Bench, Patch], Subject]:
    """Another version of a package, or none."""

    def make(bench: Bench, patch: Patch) -> Subject:
        find = software_checks.find_version
        patch.setattr(software_checks, "find_version", lambda n: version if n == name else find(n))
        return bench.subject(name=None)

    return make


def manifest(edit: Callable[[dict[str, Any]], None], *items: str) -> Callable[..., Subject]:
    """Data whose manifest says something else."""
    return lambda bench, patch: bench.subject(f"data.path={bench.copy_data(edit)}", *items)


def few_classes(content: dict[str, Any]) -> None:
    """Two of the nine classes; the rows have all of them."""
    space = content["label_space"]
    for key in ("classes", "palette", "is_thing"):
        space[key] = space[key][:2]
    space["raw_to_train"] = {"0": 0, "1": 1, "255": 255}
    for counts in content["classes"].values():
        counts.update(rows=counts["rows"][:2], pixels=counts["pixels"][:2])


def unlearned_class(content: dict[str, Any]) -> None:
    content["classes"]["train"]["pixels"][3] = 0


def few_files(bench: Bench, patch: Patch) -> Subject:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        readings = read_machine()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return bench.subject(machine={"open_files": readings.open_files})


def one_cpu(bench: Bench, patch: Patch) -> Subject:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        readings = read_machine()
    finally:
        os.sched_setaffinity(0, cpus)
    return bench.subject(machine={"affinity": readings.affinity})


def damaged_file(bench: Bench, patch: Patch) -> Subject:
    copied = bench.copy_data()
    shard = next(copied.glob("val-*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    return bench.subject(f"data.path={copied}")


def cut_file(bench: Bench, patch: Patch) -> Subject:
    copied = bench.copy_data()
    shard = next(copied.glob("train-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    return bench.subject(f"data.path={copied}")


def overlapping(bench: Bench, patch: Patch) -> Subject:
    return bench.subject(f"data.path={pack_good(bench.folder / 'twice', RepeatedShapes)}")


def storage_below_a_file(bench: Bench, patch: Patch) -> Subject:
    (bench.folder / "file").touch()
    return bench.subject(storage=bench.folder / "file" / "runs")


def broken_database(bench: Bench, patch: Patch) -> Subject:
    file = bench.folder / "mlflow.db"
    file.write_text("no database")
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    return bench.subject()


def token(text: str, mode: int) -> Callable[[Bench, Patch], Subject]:
    def make(bench: Bench, patch: Patch) -> Subject:
        file = bench.folder / ".ray" / "auth_token"
        file.parent.mkdir()
        file.write_text(text)
        file.chmod(mode)
        return bench.subject()

    return make


def measured(seconds: float, peak: int, *items: str) -> Callable[[Bench, Patch], Subject]:
    """A step that was measured; measuring itself is tested once."""

    def make(bench: Bench, patch: Patch) -> Subject:
        subject = bench.subject(*items)
        subject.__dict__["step"] = StepMeasurement(seconds, peak, False, (32, 32))
        return subject

    return make


def nodes(**report: Any) -> Callable[[Bench, Patch], Subject]:
    """Two nodes, of which the second sees something else."""

    def make(bench: Bench, patch: Patch) -> Subject:
        subject = bench.subject(address="http://127.0.0.1:9")
        good = {"storage": "", "tracker": "", "python": "3.11.7", "torch": "2.13", "ahead_s": 0.0}
        good |= {"code": code_digest()}
        first, second = {"node": "aaaa", "host": "one"}, {"node": "bbbb", "host": "two"}
        subject.__dict__["node_reports"] = [good | first, good | second | report]
        return subject

    return make


def without_gpu_build(bench: Bench, patch: Patch) -> Subject:
    patch.setattr(torch.version, "cuda", None)
    patch.setattr(torch.cuda, "is_available", lambda: False)
    return bench.subject(machine={"gpu_devices": True})


def old_driver(bench: Bench, patch: Patch) -> Subject:
    patch.setattr(torch.version, "cuda", "13.0")
    patch.setattr(torch.cuda, "is_available", lambda: False)
    return bench.subject(machine={"gpu_devices": True})


DISK = ("trainer.max_steps=100000000", "trainer.keep_every=1", "optimizer.warmup_steps=1")
MISTAKES = (
    Mistake("field misspelled", fields("trainer.max_step=9"), "request", "fail", "max_steps"),
    Mistake("value out of range", fields("trainer.workers=-1"), "request", "fail", "workers"),
    Mistake("unknown recipe", fields(name="shape_tiny"), "request", "fail", "shapes_tiny"),
    Mistake(
        "sweep varies what it may not",
        lambda b, p: b.subject("sweep.space.trainer.max_steps={low: 1, high: 9}", name="demo"),
        *("request", "fail", "trainer.max_steps"),
    ),
    Mistake("package missing", installed("optuna", None), "packages", "fail", "optuna"),
    Mistake("package of another version", installed("ray", "2.9.3"), "versions", "warn", "2.9.3"),
    Mistake("GPU asked for, none there", fields("trainer.device=cuda"), "device", "fail", "no GPU"),
    Mistake("fp16 without GPU", fields("trainer.precision=fp16"), "device", "fail", "fp16"),
    Mistake("CUDA kernels on CPU", fields("model.neuron.backend=cuda"), "cupy", "fail", "no GPU"),
    Mistake("torch's CPU build beside a GPU", without_gpu_build, "driver", "warn", "CPU alone"),
    Mistake("driver older than torch's CUDA", old_driver, "driver", "fail", "cannot use"),
    Mistake("pinned to one CPU", one_cpu, "affinity", "warn", "1 of 8 CPUs"),
    Mistake("container's CPU quota", machine(usable_cpus=1), "cpu quota", "warn", "1 of 8"),
    Mistake("OMP_NUM_THREADS no number", variable("OMP_NUM_THREADS", "all"), "thread settings",
            "warn", "no number"),
    Mistake("more threads than CPUs", variable("MKL_NUM_THREADS", "64"), "thread settings",
            "warn", "8 CPUs"),
    Mistake("workers pinned together", variable("GOMP_CPU_AFFINITY", "0-1"), "thread settings",
            "warn", "same CPUs"),
    Mistake("ulimit -n low", few_files, "open files", "fail", "300 files"),
    Mistake("limit on pids low", machine(group_tasks=180), "task limit", "fail", "80 more"),
    Mistake("/dev/shm small", machine(shared_memory=64 << 20), "shared memory", "warn", "67.1 MB"),
    Mistake("container's memory small", machine(memory_limit=600 << 20, memory_used=500 << 20),
            "memory limit", "fail", "105 MB"),
    Mistake("huge pages off", machine(huge_pages="never"), "huge pages", "warn", "are off"),
    Mistake("glibc asked for no huge pages", variable("GLIBC_TUNABLES", "glibc.malloc.check=1"),
            "huge pages", "warn", "GLIBC_TUNABLES"),
    Mistake("TMPDIR gone", variable("TMPDIR", "FOLDER/none"), "temporary folder", "fail", "none"),
    Mistake("RAY_TMPDIR too long", variable("RAY_TMPDIR", "/tmp/" + "r" * 90), "sockets", "fail",
            "bytes"),
    Mistake("few ports", machine(ports=100), "ports", "warn", "100 ports"),
    Mistake("storage cannot be made", storage_below_a_file, "storage", "fail", "cannot be written"),
    Mistake("disk too small", fields(*DISK), "disk", "fail", "are free"),
    Mistake("mirror of an unknown kind", fields("trainer.mirror=s4://bucket/runs"), "mirror",
            "fail", "trainer.mirror"),
    Mistake("weights missing", fields("init.segmentor=/none/weights.pth"), "initial weights",
            "fail", "init.segmentor"),
    Mistake("data not packed", fields("data.path=/none"), "data", "fail", "no such folder"),
    Mistake("other number of classes", fields("model.num_classes=4", "model.query.num_queries=4"),
            "data", "fail", "model.num_classes"),
    Mistake("copy cut short", cut_file, "data", "fail", "bytes expected"),
    Mistake("labels beyond the classes", manifest(few_classes, "model.num_classes=2",
            "model.query.num_queries=2"), "labels", "fail", "classes are 0 to 1"),
    Mistake("a bit flipped in a file", damaged_file, "digest", "fail", "SHA-256"),
    Mistake("step larger than the data", fields("trainer.micro_batch_size=80"), "splits", "warn",
            "a step takes 160"),
    Mistake("image in two splits", overlapping, "overlap", "warn", "24 images"),
    Mistake("no baselines", manifest(lambda m: m["baselines"].clear()), "baselines", "warn",
            "without image-blind"),
    Mistake("class never learned", manifest(unlearned_class), "classes", "warn", "square"),
    Mistake("step too large for the memory", measured(1.0, 20 * 10**9), "step memory", "fail",
            "2 x 20 GB"),
    Mistake("training of months", measured(60.0, 10**8, "trainer.max_steps=160000"), "step time",
            "warn", "160000 steps"),
    Mistake("step longer than its limit", measured(9.0, 10**8, "trainer.step_timeout_s=5"),
            "step time", "fail", "takes 9 s"),
    Mistake("MLflow's old file store", variable("MLFLOW_TRACKING_URI", "file:///mlruns"),
            "tracker address", "fail", "http address"),
    Mistake("password in the address", variable("MLFLOW_TRACKING_URI", "http://me:pw@127.0.0.1:9"),
            "tracker address", "warn", "http://127.0.0.1:9"),
    Mistake("tracker dead", variable("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"), "tracker",
            "fail", "127.0.0.1:9"),
    Mistake("tracker's file no database", broken_database, "tracker", "fail", "no database"),
    Mistake("study's place of an unknown kind", variable("SPIKESEG_STUDY", "oracle9://h/d"),
            "study", "fail", "SPIKESEG_STUDY"),
    Mistake("token readable by others", token("secret", 0o644), "token", "warn", "0644"),
    Mistake("token empty", token("\n", 0o600), "token", "fail", "holds no token"),
    Mistake("token switched off", variable("RAY_AUTH_MODE", "disabled"), "token mode", "warn",
            "every user"),
    Mistake("dashboard named as RAY_ADDRESS", variable("RAY_ADDRESS", "http://h:8265"),
            "cluster address", "fail", "HOST:6379"),
    Mistake("head not running", lambda b, p: b.subject(address="http://127.0.0.1:9"), "head",
            "fail", "no Ray head answers"),
    Mistake("node without the storage", nodes(storage="No such file or directory"), "nodes", "fail",
            "node bbbb (two) does not see"),
    Mistake("tracker reached from one node only", nodes(tracker="timed out"), "nodes", "fail",
            "node bbbb (two) does not reach"),
    Mistake("another spikeseg on one node", nodes(code="0" * 64), "nodes", "warn",
            "node bbbb (two) has another spikeseg (code 000000000000"),
    Mistake("node of another Python", nodes(python="3.12.1"), "node versions", "fail", "3.12.1"),
    Mistake("node without torch", nodes(torch=None), "node versions", "fail", "torch"),
    Mistake("clocks apart", nodes(ahead_s=-90.0), "clocks", "warn", "90 s behind"),
)  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_seeded_mistake_is_found_with_a_remedy(
    bench: Bench, monkeypatch: Patch, mistake: Mistake
) -> None:
    subject = mistake.make(bench, monkeypatch)
    state, text, remedy = look(subject, mistake.check)
    assert state == mistake.state, text
    assert mistake.words in text
    assert remedy
    assert "pw" not in text.split()


def test_a_command_that_is_named_as_the_remedy_exists(bench: Bench, monkeypatch: Patch) -> None:
    subject = manifest(lambda m: m["baselines"].clear())(bench, monkeypatch)
    _, _, remedy = look(subject, "baselines")
    program, *words, _ = shlex.split(remedy)
    assert (program, words) == ("spikeseg", ["data", "pack", "--upgrade"])
    options = data_verbs.command.commands["pack"].params
    assert "--upgrade" in {name for option in options for name in option.opts}


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (Head(token=None, mode="disabled"), "asks for no token"),
        (Head(token="other"), "refuses this machine's token"),
        (Head(version="2.9.3"), "runs Ray 2.9.3"),
    ],
    ids=["open head", "another token", "another Ray"],
)
def test_a_head_that_must_not_be_used_fails(
    bench: Bench, monkeypatch: Patch, head: Head, words: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    with dashboard(head):
        finding = look(bench.subject(address=f"http://{head.address}"), "head")
    assert finding.state == "fail"
    assert words in finding.text


def test_the_table_in_the_docs_names_each_mistake_and_its_check(repository: Path) -> None:
    text = (repository / "docs" / "doctor.md").read_text()
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| (warn|fail) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted((m.name, m.check, m.state) for m in MISTAKES)
    assert len(rows) >= 30


def test_the_docs_list_every_check(repository: Path) -> None:
    text = (repository / "docs" / "doctor.md").read_text()
    assert len(CHECKS) >= 30
    assert not [check.name for check in CHECKS if f"`{check.name}`" not in text]


def test_without_a_mistake_nothing_fails(bench: Bench) -> None:
    subject = bench.subject()
    subject.__dict__["step"] = StepMeasurement(0.1, 10**8, False, (32, 32))
    found = {outcome.name: outcome.finding for outcome in run_checks(subject)}
    assert len(found) == len(CHECKS)
    bad = {name: item for name, item in found.items() if item.state in ("warn", "fail")}
    assert not bad


def test_what_a_library_raises_is_a_finding_and_not_the_end(
    bench: Bench, monkeypatch: Patch
) -> None:
    subject = bench.subject()
    monkeypatch.setattr(type(subject), "free_disk", property(lambda self: _raise()))
    found = {o.name: o.finding for o in run_checks(subject, [c for c in CHECKS if c.cheap])}
    assert found["disk"].state == "fail"
    assert "Stale file handle" in found["disk"].text
    assert found["token"].state == "ok"


def _raise() -> None:
    raise OSError(116, "Stale file handle")


def test_a_budget_that_is_used_up_skips_what_is_left(bench: Bench) -> None:
    found = list(run_checks(bench.subject(), budget=-1.0))
    assert {outcome.finding.state for outcome in found} == {"skipped"}


@pytest.mark.slow
def test_a_step_of_the_largest_point_is_measured_within_its_limit(bench: Bench) -> None:
    subject = bench.subject(name="demo")
    assert subject.largest is not None
    assert subject.largest.config.model.neuron.timesteps == 2
    assert isinstance(subject.step, StepMeasurement)
    assert not subject.step.estimated
    assert look(subject, "step time").state == "ok"
    assert "T 2" in look(subject, "step memory").text


@pytest.mark.slow
def test_a_step_beyond_the_limit_is_estimated_from_a_smaller_crop(
    bench: Bench, monkeypatch: Patch
) -> None:
    subject = bench.subject("data.transform.crop=[2048, 2048]", "trainer.micro_batch_size=8")
    assert isinstance(subject.step, StepMeasurement)
    assert subject.step.estimated
    side = subject.step.crop[0]
    assert side in (256, 512)
    assert f"estimated from a crop of {side} x {side}" in look(subject, "step time").text
