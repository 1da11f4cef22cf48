"""Source code, or a difference of it, without literals that may be secrets."""

import math
import re
from collections import Counter
from typing import NamedTuple

from .redaction import HIDDEN, NAMED, TOKEN

_LONGEST_LINE = 4000
_HUNK = re.compile(r"(?:diff --git |@@ |index |--- |\+\+\+ |new file |deleted file )")
_YAML = re.compile(r"diff --git .*\.ya?ml$")
_NAME = re.compile(rf"(?i){NAMED}")
_LITERAL = re.compile(r"(\"\"\"|\'\'\'|[\"'])((?:\\.|(?!\1)[^\\\n])*)\1")
# A secret that stands in a literal behind its own name.
_NAMED_IN_LITERAL = re.compile(
    rf"(?i)({NAMED}\\?[\"']?(?:=|:\s*[\"']?(?=\S+\Z)))(?!\[hidden\])[^\s\"'&{{]{{4,}}"
)
_NAMED_IN_PROSE = re.compile(rf"(?i)({NAMED}\s*[=:]\s*)(?!\[hidden\])[^\s\"']{{4,}}")
_BEARER = re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}")
_USER_IN_CODE = re.compile(
    r"(?<=[\"'])[\w.%+-]+:[^\s\"'@/]{3,}@(?=[\w.-])(?!sha256:)"
    r"|(?<=://)[\w.%+-]*:[^\s\"'{}()\\]+@"
)
_WEBHOOK = re.compile(r"(?i)(://[^\s\"']*?hooks?[^\s\"'/]*/)(?!\[hidden\])[^\s\"']+")
# Calls whose second argument is often a password, and places where a key has no telling name.
_LOGIN = re.compile(r"(?i)\b\w*(?:login|log_in|authenticate|connect)\(")
_KEY_WITHOUT_NAME = re.compile(r"\bkey\s*=\s*[\"']|\benviron\[|\b(?:put|set)env\(")
_ASSIGNED = re.compile(r"[\"'\]\s]*[=:]\s*[bfru]{0,2}", re.IGNORECASE)
_WORD = re.compile(r"[^\s\"'`,;()\[\]{}<>]+")
_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{32,}")
# Bits a character: paths and names in CamelCase have less, random words of base 64 more.
_RANDOM_BITS = 4.4
_KEY_OF_YAML = re.compile(r"\s*(?:-\s+)*([\w.\"'-]+)\s*:(?:\s+|$)")
# Not the signs that a block follows, and not the blanks at the end.
_VALUE_OF_YAML = re.compile(
    r"^((?>\s*(?:-\s+)*(?:[\w.\"'-]+\s*:(?:\s+|$))?))(?![|>][+-]?\s*$)\S(?:.*\S)?"
)


def scrubbed_code(text: str) -> str:
    """Source code, or a difference of it, without literals that may be secrets; names stay.

    Hidden are the strings behind a name like a secret's, on its line and in the brackets that it
    opens, in YAML everything below it, words that look random, and tokens of well-known forms; a
    secret that is a plain word below a harmless name is not recognised. Lines of more than 4,000
    characters are left out.
    """
    lines = [_without_long_line(line) for line in text.splitlines(keepends=True)]
    scrubber: _PythonLines | _YamlLines = _PythonLines()
    result = []
    for line in lines:
        if _HUNK.match(line):
            scrubber = _YamlLines() if _YAML.match(line) else type(scrubber)()
            result.append(line)
            continue
        line = _WEBHOOK.sub(rf"\1{HIDDEN}", _USER_IN_CODE.sub(f"{HIDDEN}@", line))
        # Of a difference the first column says what became of the line.
        sign, body = (line[0], line[1:]) if line[:1] in ("+", "-") else ("", line)
        result.append(sign + _RANDOM.sub(_hide_random, scrubber.scrub(body)))
    # By files: the end of a private key that lacks its last line is that of its file.
    files = re.split(r"(?m)^(?=diff --git )", "".join(result))
    return "".join(TOKEN.sub(_hide_token, _BEARER.sub(rf"\1{HIDDEN}", file)) for file in files)


def _without_long_line(line: str) -> str:
    if len(line) <= _LONGEST_LINE or _HUNK.match(line):
        return line[:_LONGEST_LINE]
    sign = line[0] if line[0] in "+- " else ""
    return f"{sign}[a line of {len(line)} characters is left out]\n"


def _hide_token(match: re.Match[str]) -> str:
    """A token hidden; of one over several lines each line, so that a difference stays one."""
    _, *others = match[0].split("\n")
    hidden = [(line[:1] if line[:1] in ("+", "-", " ") else "") + HIDDEN for line in others if line]
    return "\n".join([HIDDEN, *hidden, *([""] if others and not others[-1] else [])])


def _hide_random(match: re.Match[str]) -> str:
    word = match[0]
    counts = Counter(word)
    bits = -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
    kinds = sum(any(test(c) for c in word) for test in (str.isupper, str.islower, str.isdigit))
    return HIDDEN if kinds == 3 and bits >= _RANDOM_BITS else word


def _looks_like_key(word: str, length: int) -> bool:
    """Whether a word has letters and digits and is long enough."""
    return len(word) >= length and bool(re.search(r"\d", word) and re.search(r"[A-Za-z]", word))


def _hide_words(prose: str) -> str:
    """Prose behind a secret's name without words of letters and digits."""
    prose = _NAMED_IN_PROSE.sub(rf"\1{HIDDEN}", prose)
    name = _NAME.search(prose)
    if name is None:
        return prose
    end = name.end()
    return prose[:end] + _WORD.sub(
        lambda word: HIDDEN if _looks_like_key(word[0], 8) else word[0], prose[end:]
    )


class _PythonLines:
    """Scrubs lines of Python one after the other; what a line opens reaches the next ones."""

    def __init__(self) -> None:
        self._open = 0  # brackets that began on a line with a secret's name
        self._next_line = False
        self._quote = ""  # the triple quotes that are open
        self._secret_quote = False

    def scrub(self, line: str) -> str:
        """One line without its sign."""
        if self._quote:
            return self._scrub_quoted(line)
        code, comment = _split_comment(line)
        name = _NAME.search(code)
        reached = self._open > 0 or self._next_line
        self._next_line = False
        if reached:
            start = 0
        elif name:
            start = name.end()
        else:
            start = len(code)
        self._follow(code, name)
        code = _LITERAL.sub(lambda literal: _hide_literal(literal, start), code)
        login = _LOGIN.search(code)
        if login and code.count(",", login.end()):
            second = code.index(",", login.end())
            code = _LITERAL.sub(lambda literal: _hide_literal(literal, second), code)
        if _KEY_WITHOUT_NAME.search(code):
            code = _LITERAL.sub(_hide_key, code)
        if comment and _NAME.search(comment):
            self._next_line = comment.rstrip().endswith(":")
            comment = _hide_words(_LITERAL.sub(lambda literal: _hide_literal(literal, 0), comment))
        return code + comment

    def _follow(self, code: str, name: re.Match[str] | None) -> None:
        """Note what the line leaves open for the next ones."""
        bare = _LITERAL.sub("", code)
        opened = sum(map(bare.count, "([{")) - sum(map(bare.count, ")]}"))
        if self._open:
            self._open = max(0, self._open + opened)
        elif name and not re.match(r"\s*(?:async )?(?:def|class)\b", code):
            self._open = max(0, opened)
        self._next_line = bool(name) and bare.rstrip().endswith(("=", "\\"))
        for quote in ('"""', "'''"):
            if code.count(quote) % 2:
                # A docstring that speaks of passwords is prose.
                docstring = code.lstrip().startswith(quote)
                self._quote, self._secret_quote = quote, bool(name) and not docstring

    def _scrub_quoted(self, line: str) -> str:
        """A line between triple quotes: prose, or the secret itself."""
        text, quote, rest = line.partition(self._quote)
        if quote:
            self._quote = ""
        if self._secret_quote:
            text = re.sub(r"\S{4,}", HIDDEN, text) if len(text.split()) == 1 else text
        return _hide_words(text) + quote + rest


def _split_comment(line: str) -> tuple[str, str]:
    """A line's code and its comment; a # in a literal begins none."""
    blanked = _LITERAL.sub(lambda literal: "x" * len(literal[0]), line)
    at = blanked.find("#")
    return (line, "") if at < 0 else (line[:at], line[at:])


def _hide_literal(literal: re.Match[str], start: int) -> str:
    """A literal hidden if it is one word behind `start`, else without what it names itself."""
    quote, content = literal.groups()
    behind = literal.string[start : literal.start()]
    if literal.start() >= start and (
        re.fullmatch(r"\S{4,}", content) or (content and _ASSIGNED.fullmatch(behind))
    ):
        content = HIDDEN
    else:
        content = _NAMED_IN_LITERAL.sub(rf"\1{HIDDEN}", content)
    return f"{quote}{content}{quote}"


def _hide_key(literal: re.Match[str]) -> str:
    quote, content = literal.groups()
    one_word = re.fullmatch(r"[\w+/=.-]+", content)
    return f"{quote}{HIDDEN}{quote}" if one_word and _looks_like_key(content, 16) else literal[0]


class _YamlLines:
    """Scrubs lines of YAML one after the other; what stands below a secret's name goes whole."""

    def __init__(self) -> None:
        self._below: _Below | None = None

    def scrub(self, line: str) -> str:
        """One line without its sign."""
        code, comment = _split_comment(line)
        if not code.strip():
            return code + _hide_words(comment)
        indent = len(code) - len(code.lstrip(" "))
        item = code.lstrip().startswith("- ")
        if self._below is not None and not self._below.holds(indent, item):
            self._below = None
        key = _KEY_OF_YAML.match(code)
        hidden = self._below is not None and not (self._below.pair and not _is_value(key))
        if key and _NAME.fullmatch(key[1].strip("\"'")):
            hidden, self._below = True, self._below or _Below(indent, pair=False)
        elif key and self._below is None and _NAME.search(code[key.end() :]):
            # As in `- name: DB_PASSWORD`, whose next line has the value.
            self._below = _Below(indent, pair=True)
        if hidden:
            code = _VALUE_OF_YAML.sub(rf"\1{HIDDEN}", code)
        return code + (_hide_words(comment) if comment else "")


class _Below(NamedTuple):
    """What stands below a name: its indent, and whether its value is a `value:` beside it."""

    indent: int
    pair: bool

    def holds(self, indent: int, item: bool) -> bool:
        """Whether a line of this indent still belongs to it."""
        return indent > self.indent or (item and not self.pair and indent == self.indent)


def _is_value(key: re.Match[str] | None) -> bool:
    return key is not None and key[1].strip("\"'").lower() in ("value", "default")
