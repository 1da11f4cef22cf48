"""Sentences for a terminal: lines that fit."""

import textwrap

_WIDEST = 158


def fill_lines(text: str) -> str:
    """Break a sentence between words into lines below 160 characters; a longer word stays whole."""
    return textwrap.fill(text, _WIDEST, break_long_words=False, break_on_hyphens=False)
