"""A text from outside costs no more than its first 2,000 characters, and shows no secret."""

import itertools
import subprocess
import sys

import pytest

from spikeseg.platform.config.redaction import LONGEST_MESSAGE, scrubbed, scrubbed_message, shorten

SECRET = "hunter22-of-somebody"
PIECES = (
    "a:",
    "://",
    "token",
    "token=",
    "token={",
    "token=[",
    'key="',
    "-pw",
    "a.",
    "sk-",
    "eyJa.",
)
SHAPES = [
    *PIECES,
    *map("".join, itertools.permutations(PIECES[:6], 2)),
    "x y",
    "\n",
    "\x1b[",
    "<p>",
]


@pytest.mark.timeout(120)
def test_a_million_letters_of_any_shape_are_shown_in_bounded_time() -> None:
    """In a child: a quadratic search over one such text takes hours and holds all threads."""
    program = f"""
from spikeseg.platform.config.redaction import scrubbed_message
for shape in {SHAPES!r}:
    for text in (shape * (1_000_000 // len(shape)), "Response body: " + shape * 300_000):
        assert len(scrubbed_message(text)) < 2600, shape
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_first_letters_reach_the_patterns(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []

    def measure(text: str) -> str:
        lengths.append(len(text))
        return text

    monkeypatch.setattr("spikeseg.platform.config.redaction.scrubbed", measure)
    scrubbed_message(shape * 400_000)
    assert lengths and max(lengths) <= LONGEST_MESSAGE + 60


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET} " + "x " * 5000,
        "x" * (LONGEST_MESSAGE - 30) + f" https://bob:{SECRET}@host/" + "y" * 5000,
        "x" * (LONGEST_MESSAGE - 10) + f' password="two {SECRET}"' + "y" * 5000,
        "x" * (LONGEST_MESSAGE - 40) + f' password="one two {SECRET} four"' + "y" * 5000,
        "x" * (LONGEST_MESSAGE - 40) + f" tokens=[a, {SECRET}, b]" + "y" * 5000,
        f"tok\x1b[1men={SECRET}",
        f"token=\x1b[31m{SECRET}\x1b[0m",
    ],
)
def test_a_secret_at_the_cut_or_behind_an_escape_is_hidden(text: str) -> None:
    assert SECRET[:10] not in scrubbed_message(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[2J\x1b]0;title\x07here\x1b", "here"),
        ("a\x00b\x9bc\u202ed", "a b c d"),
        ("<html><p>a</html>", "[an HTML page]"),
        ("failed: <!DOCTYPE html><TITLE> Sign in </TITLE>x", "failed: [an HTML page: Sign in]"),
        ("a < b", "a < b"),
        (ValueError("an error"), "an error"),
    ],
)
def test_a_message_is_one_printable_line(text: object, shown: str) -> None:
    assert scrubbed_message(text) == shown


def test_a_cut_says_how_long_the_text_was() -> None:
    assert shorten("one two three", 8) == "one two [cut: 13 characters in all]"
    assert shorten("x" * 50, 8) == " [cut: 50 characters in all]"
    assert shorten("short", 8) == "short"


def test_what_was_cut_is_scrubbed_as_a_whole_text_is() -> None:
    assert scrubbed('token="abcd') == "token=[hidden]"
    assert scrubbed("tokens=[a, b") == "tokens=[hidden]"
