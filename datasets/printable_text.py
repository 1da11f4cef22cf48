"""Text of others made safe for a terminal: one rule for whatever is printed or logged."""

import re
import unicodedata

_SUSPECT = re.compile(r"[^\x20-\x7e\n\t]")
# Controls, invisible marks that turn or hide text, lone surrogates, separators that end a line.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def make_printable(text: str) -> str:
    """Replace characters that a terminal obeys, or that hide others, by their escapes.

    Args:
        text: Any text; line breaks and tabs stay.

    Returns:
        The text, with four characters that name its code in the place of an escape character.
    """
    return _SUSPECT.sub(_escape, text)


def is_printable(text: str) -> bool:
    """Whether a name has only characters that a terminal shows, and no line break or tab."""
    return make_printable(text) == text and not re.search(r"[\n\t]", text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    number = ord(character)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
