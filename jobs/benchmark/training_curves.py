"""`spikeseg benchmark curves`: the evaluations of trainings as one small file to keep."""

import json
from pathlib import Path
from typing import Any

import click

from ...datasets.packed.files import write_file
from ...platform.config.recipes import flat, load_resolved
from ...platform.runs.find_run import FoundRun, find_run, trials_of
from ...platform.tracking.journal_lines import read_records
from ..cli import run
from ..options import storage_option

# Where the data lie says nothing on another machine; its digest does.
_LEFT_OUT = ("data.path",)


@click.command("curves")
@click.argument("words", metavar="RUN...", nargs=-1, required=True)
@storage_option
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file; trainings that are already in it are kept.",
)
def command(words: tuple[str, ...], storage: Path, output: Path) -> None:
    """Write every evaluation of RUN (of a sweep: of its trials) with all metrics to a file."""
    curves = {curve["run"]: curve for curve in _read_collection(output)}
    for word in words:
        found = find_run(word, storage, kinds=("run", "trial", "sweep"))
        for member in trials_of(found.folder) if found.kind == "sweep" else [found]:
            curve = read_curve(member)
            curves[curve["run"]] = curve
    lines = ",\n".join(json.dumps(curve, sort_keys=True) for curve in curves.values())
    write_file(output, f"[\n{lines}\n]\n".encode())
    print(f"{output}: {len(curves)} trainings, {output.stat().st_size / 1000:.0f} kB")


def _read_collection(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()) if path.is_file() else []


def _read_fields(found: FoundRun) -> dict[str, str]:
    """Every field of a run's configuration; its journal has few of them as parameters."""
    path = found.folder / "config.yaml"
    if not path.is_file():
        return {}
    return {key: str(v) for key, v in flat(load_resolved(path.read_text()).config).items()}


def read_curve(found: FoundRun) -> dict[str, Any]:
    """Read what a training measured from its journal.

    Args:
        found: A run, or a trial of a sweep.

    Returns:
        `run` its name, `commit` and `dirty` of the code, `data` the digest of the packed data,
        `params` its configuration, `evaluations` a list of step, `elapsed_s` (wall seconds since
        the run began) and metrics, and `test` the scores of the test split, empty if not scored.
    """
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    evaluations: dict[int, dict[str, float]] = {}
    test: dict[str, float] = {}
    began: int | None = None
    for record in read_records(found.folder / "journal"):
        kind = record["kind"]
        if kind == "run" and began is None:
            began = record["time"]
        elif kind in ("params", "tags"):
            (params if kind == "params" else tags).update(record["values"])
        elif kind == "metrics":
            values = record["values"]
            test.update({name: v for name, v in values.items() if name.startswith("test/")})
            if "val/mIoU" in values:
                elapsed = (record["time"] - (began or record["time"])) / 1000
                kept = {n: v for n, v in values.items() if not n.startswith("best/")}
                # A step that was evaluated again after a kill counts once.
                evaluations[record["step"]] = {"elapsed_s": elapsed, **kept}
    return {
        "run": found.word,
        "commit": tags.get("git_sha", ""),
        "dirty": tags.get("dirty") == "true",
        "data": tags.get("data_digest", ""),
        "params": {k: v for k, v in (_read_fields(found) | params).items() if k not in _LEFT_OUT},
        "evaluations": [{"step": step, **evaluations[step]} for step in sorted(evaluations)],
        "test": test,
    }


if __name__ == "__main__":
    run(command)
