"""Sentences are broken between words; a word, such as a path, stays whole."""

from spikeseg.jobs.display.sentences import fill_lines


def test_lines_are_below_160_characters_and_words_stay_whole() -> None:
    path = "/folder" * 30
    text = f"{'a sentence of some words ' * 20}{path} and the end-of-it."
    lines = fill_lines(text).splitlines()
    assert " ".join(lines) == " ".join(text.split())
    assert path in lines
    assert all(len(line) < 160 for line in lines if line != path)
