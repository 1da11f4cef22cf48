"""Sentences for a terminal: lines that fit."""

import textwrap

WIDEST = 158
"""Characters of a line at most."""


def fill_lines(text: str) -> str:
    """Break a sentence between words into lines below 160 characters; a longer word stays whole."""
    return textwrap.fill(text, WIDEST, break_long_words=False, break_on_hyphens=False)
