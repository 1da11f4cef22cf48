"""`spikeseg doctor`: what would go wrong with a training or a sweep here, and the remedy."""

import json
from collections import Counter
from pathlib import Path

import click

from .cli import run
from .options import overrides_argument, plain_logging, storage_option


@click.command("doctor")
@click.argument("recipe", required=False, metavar="[RECIPE|SWEEP]")
@overrides_argument
@click.option("--address", help="Dashboard of a head that the work is to run on.")
@click.option("--concurrency", type=click.IntRange(1), help="Trials at a time, of a sweep.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@storage_option
def command(
    recipe: str | None,
    overrides: tuple[str, ...],
    address: str | None,
    concurrency: int | None,
    as_json: bool,
    storage: Path,
) -> int:
    """Check this machine, and what a training of RECIPE or a sweep would need.

    Takes at most a minute. Exit code 1 where something would end the work.
    """
    from ..platform.doctor.run_checks import run_checks
    from ..platform.doctor.subject import read_subject

    plain_logging()
    if recipe is not None and "=" in recipe:
        raise click.UsageError(f"{recipe}: FIELD=VALUE needs a recipe or a sweep before it")
    subject = read_subject(
        recipe, overrides, storage=storage, address=address, concurrency=concurrency
    )
    outcomes = []
    for outcome in run_checks(subject):
        outcomes.append(outcome)
        if not as_json:
            name, (state, text, remedy), _ = outcome
            print(f"{state:8}{name:18}{text}", flush=True)
            if remedy:
                print(f"{'':26}-> {remedy}", flush=True)
    counts = Counter(outcome.finding.state for outcome in outcomes)
    if as_json:
        rows = [
            {"check": name, **finding._asdict(), "seconds": round(seconds, 3)}
            for name, finding, seconds in outcomes
        ]
        print(json.dumps({"counts": counts, "checks": rows}, indent=1))
    else:
        print(", ".join(f"{counts[state]} {state}" for state in ("ok", "warn", "fail", "skipped")))
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    run(command)
