"""What a person sees of work that goes on: bars on a terminal, a line a second elsewhere."""

import io

from rich.console import Console

from spikeseg.jobs.display.progress import LiveProgress, PlainProgress
from spikeseg.platform.train.progress import StatusLine


def step(number: int) -> StatusLine:
    text = f"step {number}/100  loss 1.5  ETA 0:09"
    return StatusLine(text, task="training", done=number, total=100, detail="loss 1.5")


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_of_frequent_status_lines_one_a_second_is_printed_and_the_newest_is_not_lost() -> None:
    clock, lines = Clock(), []
    progress = PlainProgress(lines.append, clock)
    for number in range(1, 31):
        progress(step(number))
        progress.tick()
        clock.now += 0.125
    assert [line.split()[4] for line in lines] == ["1/100", "9/100", "17/100", "25/100"]
    clock.now += 1
    progress.tick()
    assert lines[-1] == "[   4.8 s] step 30/100  loss 1.5  ETA 0:09"


def test_other_lines_and_the_end_of_a_task_never_wait() -> None:
    clock, lines = Clock(), []
    progress = PlainProgress(lines.append, clock)
    for line in (step(99), "validation mIoU 30.1", "checkpoint kept", step(100)):
        progress(line)
    assert [line.partition("] ")[2] for line in lines] == [
        step(99),
        "validation mIoU 30.1",
        "checkpoint kept",
        step(100),
    ]


def test_after_ten_silent_seconds_the_last_status_is_printed_again_until_its_task_ends() -> None:
    clock, lines = Clock(), []
    progress = PlainProgress(lines.append, clock)
    progress(step(5))
    for _ in range(25):
        clock.now += 1
        progress.tick()
    assert [line.partition("] ")[0].strip("[ s") for line in lines] == ["0.0", "10.0", "20.0"]
    progress(step(100))
    clock.now += 60
    progress.tick()
    assert len(lines) == 4


def test_a_status_line_that_waits_is_printed_at_the_end() -> None:
    lines: list[str] = []
    with PlainProgress(lines.append) as progress:
        progress(step(1))
        progress(step(2))
    assert lines[-1].endswith(step(2))


def test_a_terminal_has_a_bar_with_count_and_time_left_and_lines_above_it() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    with LiveProgress(console) as progress:
        progress(step(40))
        progress("[bold] is no markup here")
        progress._live.refresh()
    shown = screen.getvalue()
    assert "training" in shown
    assert "40/100" in shown
    assert "loss 1.5" in shown
    assert "[bold] is no markup here" in shown
