"""Texts without secrets: values that are named like one, users in addresses, well-known tokens."""

import re

HIDDEN = "[hidden]"
SECRET_VARIABLE = re.compile(
    r"TOKEN|SECRET|PASS|PWD|CREDENTIAL|APIKEY|_KEY|PRIVATE|_SAS|_SIG|JOB_CONFIG_JSON"
    r"|COOKIE|HEADER|USERNAME|AUTH(?!_MODE$)",
    re.IGNORECASE,
)
"""Names of environment variables that hold a secret, or part of one."""

# Up to the last @ of a word: a password may hold one, or a slash.
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s\"']*@")
# Without a scheme only as user:password; a container's digest (image:tag@sha256:) is none.
_USER_AND_PASSWORD = r"[\w.%+-]+:[^\s\"'@/]{3,}@(?=[\w.-])(?!sha256:)"
_USER_ALONE = re.compile(rf"(?<![\w.%+/-]){_USER_AND_PASSWORD}")
_USER_IN_CODE = re.compile(rf"(?<=[\"']){_USER_AND_PASSWORD}|(?<=://)[\w.%+-]*:[^\s\"'{{}}()\\]+@")
TOKEN = re.compile(
    r"\b(?:A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30,}|hf_\w{16,}|gh[opsru]_\w{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}|sk-[\w-]{16,}|pypi-[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+|hooks\.slack\.com/services/\S+"
    # Most others: a short name of the service, then one long word, no digest and none of language.
    r"|[a-z]{2,8}(?:_[a-z0-9]{2,8}){0,2}_(?!(?:[0-9a-f]+|[a-z]+|[A-Z]+)\b)[A-Za-z0-9]{24,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
"""Tokens and keys of well-known forms."""
# From a word's start on: looking from each letter of a long word would take its length squared.
_NAMED = (
    r"(?<![\w.-])[\w.-]*(?:token|secret|(?<!com)(?<!by)pass(?!ed|ing)|pwd|credential|api[_-]?key|access[_-]?key|signature"
    r"|private[_-]?key|cookie|headers|authorization|(?<![a-z])auth(?![a-z]|[_-]?mode)"
    r"|(?<![a-z])(?:sig|sas|pw)(?![a-z])|[a-z][_-]?key(?![a-z])|(?<=[?&])key)[\w-]*"
)
# Lists and objects go whole. Quoted values may hold escapes; JSON in JSON has escaped quotes.
_SECRET_VALUE = re.compile(
    rf"(?i)({_NAMED}\\*[\"']?[=\s:]+)(?!\[hidden\])"
    r"(\[[^\]]*\]|\{[^}]*\}|\\+\"[^\"]*\"|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
    r"|(?:bearer|basic)\s+\S+|[^\s&;,\"'}\]]+)"
)
_SECRET_IN_QUOTES = re.compile(rf"(?i)([\"'])(-*{_NAMED}=)(?:(?!\1)[^\n])*\1")
_SECRET_ARGUMENT = re.compile(rf"(?i)(-*{_NAMED}=).*", re.DOTALL)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}")
_USER_ARGUMENT = re.compile(r"((?:^|\s)(?:-u|--user)[ =])[^\s:]+:\S+")
# Brackets, a type and a diff's plus may come before the literal, and literals that are hidden.
_SECRET_IN_CODE = re.compile(
    rf"(?i)({_NAMED}[\"']?\s*[=:]\s*(?:str\s*=\s*)?"
    r"(?:[(\[][(\[\s+]*(?:[\"']\[hidden\][\"']\s*,[\s+]*)*)?[bfru]*)"
    r"([\"'])(?!\[hidden\])[^\"'\n]{4,}\2"
)
# One line's strings, and a secret that stands in one behind its own name.
_LITERAL = re.compile(r"(\"\"\"|\'\'\'|[\"'])((?:\\.|(?!\1)[^\\\n])*)\1")
_SECRET_NAME = re.compile(rf"(?i){_NAMED}")
_SECRET_IN_LITERAL = re.compile(
    rf"(?i)({_NAMED}(?:=|:\s*(?=\S+\Z)))(?!\[hidden\])[^\s\"'&{{]{{4,}}"
)
_YAML = re.compile(r"diff --git .*\.ya?ml$", re.MULTILINE)
_SECRET_IN_COMMENT = re.compile(rf"(?i)(#[^\n\"']*?{_NAMED}\s*[=:]\s*)(?!\[hidden\])[^\s\"']{{4,}}")


def scrubbed(text: str) -> str:
    """A text, such as a command line or a variable's value, without what may be a secret."""
    text = _USER_IN_ADDRESS.sub(f"{HIDDEN}@", text)
    text = _SECRET_IN_QUOTES.sub(rf"\1\2{HIDDEN}\1", text)
    text = _SECRET_VALUE.sub(rf"\1{HIDDEN}", text)
    text = _USER_ARGUMENT.sub(rf"\1{HIDDEN}", _BEARER.sub(rf"\1{HIDDEN}", text))
    return TOKEN.sub(HIDDEN, _USER_ALONE.sub(f"{HIDDEN}@", text))


def scrubbed_argument(argument: str) -> str:
    """One word of a command line; what is named like a secret goes to the word's end."""
    return _SECRET_ARGUMENT.sub(rf"\1{HIDDEN}", argument)


def scrubbed_code(text: str) -> str:
    """Source code, or a difference of it, without literals that may be secrets; names stay.

    Hidden are the strings of a line behind a name like a secret's, and in YAML its plain value; a
    secret below a harmless name is not recognised unless it has a well-known form.
    """
    text = _USER_IN_CODE.sub(f"{HIDDEN}@", text)
    text = _SECRET_IN_COMMENT.sub(rf"\1{HIDDEN}", text)
    before = ""
    while text != before:
        # Of a list each turn hides one item.
        before, text = text, _SECRET_IN_CODE.sub(rf"\1\2{HIDDEN}\2", text)
    files = re.split(r"(?m)^(?=diff --git )", text)
    text = "".join(scrubbed(file) if _YAML.match(file) else file for file in files)
    text = "".join(_scrubbed_line(line) for line in text.splitlines(keepends=True))
    return TOKEN.sub(HIDDEN, _BEARER.sub(rf"\1{HIDDEN}", text))


def _scrubbed_line(line: str) -> str:
    """A line of code without the strings, of one word each, behind a name like a secret's."""
    name = _SECRET_NAME.search(line)
    if name is None:
        return line

    def hide(found: re.Match[str]) -> str:
        quote, content = found.groups()
        if found.start() < name.end():
            content = _SECRET_IN_LITERAL.sub(rf"\1{HIDDEN}", content)
        elif re.fullmatch(r"\S{4,}", content):
            content = HIDDEN
        return f"{quote}{content}{quote}"

    return _LITERAL.sub(hide, line)
