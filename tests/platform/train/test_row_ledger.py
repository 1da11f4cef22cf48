"""The ledger's path counts each step once, as the attempt did it that led to the weights."""

from pathlib import Path

import pytest

from spikeseg.platform.train.row_ledger import Ledger, LedgerEntry, path_to_weights


def written(folder: Path, attempt: int, rank: int, *entries: LedgerEntry) -> None:
    ledger = Ledger(folder, attempt=attempt, rank=rank)
    for entry in entries:
        ledger.write(entry)
    ledger.close()


def test_a_step_done_again_counts_as_the_last_attempt_did_it(tmp_path: Path) -> None:
    written(tmp_path, 1, 0, *(LedgerEntry(step, 0, [f"a{step}"]) for step in range(4)))
    written(tmp_path, 2, 0, *(LedgerEntry(step, 0, [f"b{step}"]) for step in range(2, 5)))
    rows = [entry.ids for entry in path_to_weights(tmp_path, 5)]
    assert rows == [["a0"], ["a1"], ["b2"], ["b3"], ["b4"]]


def test_micro_batches_of_several_workers_come_in_their_order(tmp_path: Path) -> None:
    written(tmp_path, 1, 1, LedgerEntry(0, 1, ["second"]))
    written(tmp_path, 1, 0, LedgerEntry(0, 0, ["first"]))
    assert [entry.ids for entry in path_to_weights(tmp_path, 1)] == [["first"], ["second"]]


def test_a_torn_last_line_is_not_a_row(tmp_path: Path) -> None:
    written(tmp_path, 1, 0, LedgerEntry(0, 0, ["a"]))
    with (tmp_path / "ledger" / "000001-0.jsonl").open("a") as file:
        file.write('[1, 0, ["b"')
    assert len(path_to_weights(tmp_path, 1)) == 1
    with pytest.raises(ValueError, match="no line of step 1"):
        path_to_weights(tmp_path, 2)
