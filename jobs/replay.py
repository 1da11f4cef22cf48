"""`spikeseg replay`: repeat a run from its id and compare every step."""

from pathlib import Path

import click

from .cli import run
from .display.progress import open_progress
from .options import plain_logging, run_argument, storage_option


@click.command("replay")
@run_argument
@click.option("--execute", is_flag=True, help="Train again and compare; without it, only look.")
@click.option("--data", metavar="DIR", help="Where the run's packed data lies now.")
@storage_option
def command(word: str, execute: bool, data: str | None, storage: Path) -> int:
    """Rebuild RUN from what MLflow holds of it: say what is missing or different, or repeat it.

    Ends with exit code 0 where every metric at every step is equal, 1 where one differs, 2 where
    the run cannot be repeated here.
    """
    from ..platform.runs.find_run import find_mlflow_id
    from ..platform.runs.replay import plan_replay, replay

    plain_logging()
    run_id, storage = find_mlflow_id(word, storage.absolute(), kinds=("run", "trial"))
    plan = plan_replay(run_id, storage, data)
    print(f"run {run_id} ({plan.run.name}): configuration and data are here")
    if plan.run.status != "FINISHED":
        print(f"  it did not finish ({plan.run.status}): what it recorded is compared")
    for item in plan.differences:
        print(f"  differs: {item.kind}: {item.text}")
    if not plan.differences:
        print("  nothing differs: packages, code, environment and hardware are as they were")
    if not execute:
        print("repeat it: add --execute")
        return 0
    with open_progress() as display:
        verdict = replay(plan, storage=storage, progress=display)
    if verdict.first is None:
        print(f"equal: {verdict.compared} values, every metric at every step ({verdict.folder})")
        return 0
    step, key, before, now = verdict.first
    print(f"differs first at step {step}: {key} was {before!r}, is {now!r} ({verdict.folder})")
    print(f"likely cause: {verdict.cause}")
    return 1


if __name__ == "__main__":
    run(command)
