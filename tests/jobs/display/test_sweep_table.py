"""What a person sees of a sweep that runs: a table on a terminal, the same counts in a line."""

import dataclasses
import io

from rich.console import Console

from spikeseg.jobs.display.sweep_table import sweep_table
from spikeseg.platform.search.study.trial_records import TrialRecord
from spikeseg.platform.search.sweep_status import SweepStatus, summary


def trial(number: int, state: str, levels: int, miou: float, energy: float) -> TrialRecord:
    values = (miou, energy) if state == "COMPLETE" else ()
    history = {100: {"val/mIoU": miou, "energy/mJ": energy}}
    return TrialRecord(number, state, {"model.neuron.levels": levels}, history, values=values)


BEST, CHEAP = trial(0, "COMPLETE", 8, 41.25, 3.5), trial(1, "COMPLETE", 1, 20.5, 0.75)
STATUS = SweepStatus(
    name="mine",
    total=9,
    counts={"RUNNING": 1, "COMPLETE": 2, "PRUNED": 3, "FAIL": 1},
    running=[trial(6, "RUNNING", 4, 30.0, 2.0)],
    best=BEST,
    scores=[41.25, 3.5],
    front=[BEST, CHEAP],
    objectives=["val/mIoU", "energy/mJ"],
    device_seconds=123.4,
    eta_seconds=65.0,
    steps=300,
)


def test_the_table_shows_counts_cost_time_left_running_best_and_front() -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(sweep_table(STATUS))
    title, _, head, _, *rows = console.export_text().splitlines()
    assert title.strip() == (
        "mine: 6/9 done (1 running, 3 pruned, 1 failed), best 41.25, front of 2, "
        "123 device-seconds, ETA 1:05"
    )
    assert head.replace("┃", " ").split() == ["trial", "step", "val/mIoU", "energy/mJ", "point"]
    shown = [row.replace("│", " ").split() for row in rows if "levels" in row]
    assert shown == [
        ["6", "running", "100/300", "30", "2", "levels=4"],
        ["0", "best", "100/300", "41.25", "3.5", "levels=8"],
        ["1", "front", "100/300", "20.5", "0.75", "levels=1"],
    ]


def test_before_any_end_there_is_neither_best_nor_front_nor_time_left() -> None:
    begun = dataclasses.replace(
        STATUS,
        counts={"RUNNING": 2},
        best=None,
        scores=[],
        front=[],
        device_seconds=0.0,
        eta_seconds=None,
    )
    assert summary(begun) == "0/9 done (2 running), 0 device-seconds"
