"""Lines of progress: what a status holds, and its way from a worker to the driver."""

from pathlib import Path

from spikeseg.platform.train.progress import (
    FollowedLog,
    StatusLine,
    read_log_line,
    report_rows,
    write_log_line,
)


def test_a_status_line_arrives_from_a_worker_with_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "progress.log"
    path.write_text("of an earlier attempt\n")
    sent = StatusLine("step 3/9  loss 1", task="training", done=3, total=9, detail="loss 1")
    arrived: list[str] = []
    with FollowedLog(path, arrived.append), path.open("a") as log:
        print(write_log_line("a note {with} braces"), file=log)
        print(write_log_line(sent), file=log)
    note, status = arrived
    assert note == "a note {with} braces"
    assert not isinstance(note, StatusLine)
    assert status == sent
    assert vars(status) == vars(sent)


def test_the_log_is_readable_as_it_stands() -> None:
    line = StatusLine("step 3/9  loss 1", task="training", done=3, total=9)
    assert write_log_line(line).split("\t")[0] == "step 3/9  loss 1"
    assert read_log_line(write_log_line(line)).split("\t") == ["step 3/9  loss 1"]


def test_packing_reports_rows_in_all_and_a_rate() -> None:
    lines: list[StatusLine] = []
    report = report_rows(lines.append)  # type: ignore[arg-type]
    report(3, 12)
    assert (lines[0].task, lines[0].done, lines[0].total) == ("rows packed", 3, 12)
    assert lines[0].startswith("packed 3/12 rows, ")
