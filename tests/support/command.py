"""Running the `spikeseg` command inside the test's own process."""

import pytest

from spikeseg.jobs.cli import root, run


class Ran:
    """What a command left: exit code and both outputs."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


def spikeseg(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run one command as the shell would."""
    with pytest.raises(SystemExit) as ended:
        run(root, arguments)
    output = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return Ran(code, output.out, output.err)
