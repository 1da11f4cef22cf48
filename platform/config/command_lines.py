"""`spikeseg` commands as text that can be pasted into a shell, from any folder."""

import shlex


def command_line(*words: object) -> str:
    """A `spikeseg` command, quoted for a shell.

    Args:
        words: Verb, arguments and options; paths are absolute, for the reader may be elsewhere.
    """
    return shlex.join(["spikeseg", *map(str, words)])
