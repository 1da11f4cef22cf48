"""Mutants are single changes of what is computed, and of nothing that is only said."""

import pytest
from mutants import list_mutants

SOURCE = '''
def clip(norm: float, limit: float = 2) -> float:
    """Say 1 + 1."""
    if norm > limit:
        _log.warning("%d", 3 + 4)
        raise ValueError(f"{norm + 1}")
    return max(norm, limit) * 3
'''


def test_every_change_stands_alone_and_what_is_said_stays() -> None:
    found = {(mutant.line, mutant.before, mutant.after) for mutant in list_mutants(SOURCE)}
    assert found >= {
        (2, "2", "3"),
        (4, "norm > limit", "norm >= limit"),
        (6, "raise ValueError(f'{norm + 1}')", "pass"),
        (7, "max(norm, limit)", "min(norm, limit)"),
        (7, "max(norm, limit) * 3", "max(norm, limit) / 3"),
        (7, "3", "4"),
    }
    assert {mutant.line for mutant in list_mutants(SOURCE)} == {2, 4, 6, 7}
    assert len({mutant.source for mutant in list_mutants(SOURCE)}) == len(list_mutants(SOURCE))


@pytest.mark.parametrize(
    ("code", "argument", "result"),
    [("x and 0", 5, 5), ("not x", 5, 5), ("x if x > 1 else 0", 1, 1), ("any([x, 0])", 5, False)],
)
def test_a_mutant_computes_something_else(code: str, argument: int, result: object) -> None:
    def run(source: str) -> object:
        names: dict[str, object] = {"x": argument}
        exec(source, names)
        return names["y"]

    before = run(f"y = {code}")
    outcomes = [run(mutant.source) for mutant in list_mutants(f"y = {code}")]
    assert result in outcomes and result != before
