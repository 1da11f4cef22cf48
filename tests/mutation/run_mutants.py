"""Draw mutants of the files that decide results, run each against its tests, list the survivors.

    python tests/mutation/run_mutants.py --count 300 --seed 0 --output survivors.md

Works in a copy of the repository, one mutant after the other; each is a fork of this process, in
which torch and the other libraries are imported already. A test that fails, and one that does not
end, has noticed the mutant.
"""

import argparse
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mutants import Mutant, list_mutants

REPOSITORY = Path(__file__).resolve().parents[2]
_TRAIN = "tests/platform/train"
_STUDY = "tests/platform/search/study"
_RULES = "tests/platform/evaluation/test_energy_rules.py"
_ACCOUNTING = ("tests/model/accounting", f"{_TRAIN}/test_health.py", _RULES)
_STEP = tuple(
    f"{_TRAIN}/{name}.py"
    for name in (
        "test_step",
        "test_reduction",
        "test_failure",
        "faults/test_preemption",
        "test_synchronized_norm",
    )
)
TESTS: Mapping[str, Sequence[str]] = {
    "platform/evaluation/scores.py": ("tests/platform/evaluation", f"{_TRAIN}/test_loop.py"),
    "platform/train/step.py": _STEP,
    "platform/train/optimizer.py": (f"{_TRAIN}/test_optimizer.py", f"{_TRAIN}/test_step.py"),
    "platform/train/schedule.py": (f"{_TRAIN}/test_schedule.py", f"{_TRAIN}/test_optimizer.py"),
    "platform/train/state.py": (
        f"{_TRAIN}/test_state.py",
        f"{_TRAIN}/test_loop.py",
        f"{_TRAIN}/test_resume.py",
    ),
    "platform/search/study/pareto.py": (f"{_STUDY}/test_pareto.py",),
    "platform/search/study/pruners.py": (f"{_STUDY}/test_pruners.py",),
    "platform/search/study/samplers.py": (
        f"{_STUDY}/test_samplers.py",
        "tests/platform/search/test_trial_cost.py",
    ),
    "platform/evaluation/energy_rules.py": _ACCOUNTING,
    "model/accounting/energy.py": _ACCOUNTING,
    "model/accounting/fan_out.py": _ACCOUNTING,
    "model/accounting/firing.py": _ACCOUNTING,
    "model/accounting/health.py": _ACCOUNTING,
    "model/accounting/macs.py": _ACCOUNTING,
    "model/accounting/operations.py": _ACCOUNTING,
    "model/accounting/product_counts.py": _ACCOUNTING,
    "model/accounting/spike_map.py": _ACCOUNTING,
    "model/accounting/spike_origins.py": _ACCOUNTING,
}
"""Source -> the tests that are to notice its mutants; of those not slow."""

_LIBRARIES = ("torch", "torch.distributed", "safetensors.torch", "optuna", "pyarrow.parquet")
_MORE_LIBRARIES = ("scipy.optimize", "pydantic", "PIL.Image", "pytest", "matplotlib.pyplot")
_LEAST = 4


def draw(count: int, seed: int, sources: Sequence[str]) -> dict[str, list[Mutant]]:
    """Mutants of every source, in proportion to how many it has.

    Args:
        count: Mutants of all sources together.
        seed: Decides which.
        sources: Files, from the repository's root.
    """
    every = {name: list_mutants((REPOSITORY / name).read_text()) for name in sources}
    total = sum(map(len, every.values()))
    generator = random.Random(seed)
    drawn = {}
    for name, mutants in every.items():
        share = min(len(mutants), max(_LEAST, count * len(mutants) // total))
        drawn[name] = sorted(generator.sample(mutants, share), key=lambda mutant: mutant.line)
        print(f"{name}: {share} of {len(mutants)} mutants", flush=True)
    return drawn


def copy_repository(tree: Path) -> None:
    """Copy the files that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, tree / name)


def run_tests(tree: Path, tests: Sequence[str], seconds: float) -> int:
    """Exit code of pytest in a fork of this process; 1 where it does not end in time.

    Args:
        tree: The copy of the repository.
        tests: Files and folders below it.
        seconds: Longest time.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.chdir(tree)
        output = os.open(tree.parent / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        import pytest

        options = ["-x", "-q", "-m", "not slow and not gpu and not ray", "-p", "no:cacheprovider"]
        os._exit(int(pytest.main([*options, *(name for name in tests if (tree / name).exists())])))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1


def find_survivors(
    tree: Path, name: str, mutants: Sequence[Mutant], output: Path
) -> tuple[int, float]:
    """Run the mutants of one source; write a line for each that no test noticed.

    Args:
        tree: The copy of the repository.
        name: The source.
        mutants: Its mutants.
        output: Table to append to.

    Returns:
        Number of survivors, and seconds.
    """
    began = time.monotonic()
    original = (tree / name).read_text()
    if run_tests(tree, TESTS[name], 600) != 0:
        said = (tree.parent / "output").read_text()[-2000:]
        sys.exit(f"{name}: its tests fail without a mutant: {said}")
    seconds = 3 * (time.monotonic() - began) + 20
    survivors = 0
    for mutant in mutants:
        (tree / name).write_text(mutant.source)
        if run_tests(tree, TESTS[name], seconds) == 0:
            survivors += 1
            with output.open("a") as table:
                row = f"`{mutant.before}` | `{mutant.after}`".replace("\n", " ")
                table.write(f"| {name}:{mutant.line} | {row} |\n")
    (tree / name).write_text(original)
    return survivors, time.monotonic() - began


def main() -> None:
    """Read arguments, draw, run, write the table."""
    parser = argparse.ArgumentParser(
        description="Draw mutants, run their tests, list the survivors."
    )
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("survivors.md"))
    parser.add_argument("--only", nargs="*", default=list(TESTS), metavar="SOURCE")
    options = parser.parse_args()
    drawn = draw(options.count, options.seed, options.only)
    output = options.output.absolute()
    output.write_text("| line | code | mutant |\n|---|---|---|\n")
    # A source of the same size and second must not be taken from a cache.
    sys.dont_write_bytecode = True
    for library in (*_LIBRARIES, *_MORE_LIBRARIES):
        importlib.import_module(library)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "spikeseg"
        copy_repository(tree)
        os.environ |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path[:0] = [folder]
        for name, mutants in drawn.items():
            survivors, seconds = find_survivors(tree, name, mutants, output)
            print(
                f"{name}: {survivors} of {len(mutants)} survived, {seconds:.0f} s",
                flush=True,
            )
    total = sum(map(len, drawn.values()))
    print(f"{total} mutants with seed {options.seed}: {output}")


if __name__ == "__main__":
    main()
