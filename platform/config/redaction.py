"""Texts without secrets: values that are named like one, users in addresses, well-known tokens."""

import re

HIDDEN = "[hidden]"
LONGEST_MESSAGE = 2000
"""Characters of a text from outside that are looked at and shown."""
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
NAMED = (
    r"(?<![\w.-])[\w.-]*(?:token|secret|(?<!com)(?<!by)pass(?!ed|ing)|pwd|credential|api[_-]?key|access[_-]?key|signature"
    r"|private[_-]?key|cookie|headers|authorization|(?<![a-z])auth(?![a-z]|[_-]?mode)"
    r"|(?<![a-z])(?:sig|sas|pw)(?![a-z])|[a-z][_-]?key(?![a-z])|(?<=[?&])key)[\w-]*"
)
# Lists and objects go whole. Quoted values may hold escapes; JSON in JSON has escaped quotes.
# A text that was cut may end within any of them.
_SECRET_VALUE = re.compile(
    rf"(?i)({NAMED}\\*[\"']?[=\s:]+)(?!\[hidden\])"
    r"(\[[^\]]*(?:\]|\Z)|\{[^}]*(?:\}|\Z)|\\+\"[^\"]*(?:\"|\Z)|\"(?:\\.|[^\"\\])*(?:\"|\Z)"
    r"|'(?:\\.|[^'\\])*(?:'|\Z)"
    r"|(?:bearer|basic)\s+\S+|[^\s&;,\"'}\]]+)"
)
_SECRET_IN_QUOTES = re.compile(rf"(?i)([\"'])(-*{NAMED}=)(?:(?!\1)[^\n])*\1")
_SECRET_ARGUMENT = re.compile(rf"(?i)(-*{NAMED}=).*", re.DOTALL)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}")
_USER_ARGUMENT = re.compile(r"((?:^|\s)(?:-u|--user)[ =])[^\s:]+:\S+")


_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|.?)", re.DOTALL
)
_HTML = re.compile(r"<(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^<>]*>([^<]{0,200})", re.IGNORECASE)


def scrubbed_message(text: object) -> str:
    """A text from outside, such as a server's answer, as one line that may be shown.

    It is cut to 2,000 characters before anything looks at it: what a server sends is not to cost
    more than that. Control characters and terminal escapes are left out, of an HTML page its title
    stays, and secrets are hidden.

    Args:
        text: The text, or the error whose text it is.
    """
    whole = str(text)
    shown = shorten(whole, LONGEST_MESSAGE)
    shown = "".join(c if c.isprintable() else " " for c in _ESCAPE.sub("", shown))
    page = _HTML.search(shown)
    if page is not None:
        title = _TITLE.search(shown, page.start())
        about = f": {title[1].strip()}" if title else ""
        shown = f"{shown[: page.start()]}[an HTML page{about}]"
    return scrubbed(" ".join(shown.split()))


def shorten(text: str, limit: int) -> str:
    """A text of at most so many characters, and a note of how long it was.

    It is cut between words: half of a secret would not be recognised as one.

    Args:
        text: Any text.
        limit: Characters that stay.
    """
    if len(text) <= limit:
        return text
    end = max(text.rfind(blank, 0, limit) for blank in (" ", "\n", "\t"))
    return f"{text[: max(0, end)]} [cut: {len(text)} characters in all]"


def scrubbed(text: str) -> str:
    """A text, such as a command line or a variable's value, without what may be a secret.

    Time may grow with the square of the length: texts of others go through `scrubbed_message`.
    """
    text = _USER_IN_ADDRESS.sub(f"{HIDDEN}@", text)
    text = _SECRET_IN_QUOTES.sub(rf"\1\2{HIDDEN}\1", text)
    text = _SECRET_VALUE.sub(rf"\1{HIDDEN}", text)
    text = _USER_ARGUMENT.sub(rf"\1{HIDDEN}", _BEARER.sub(rf"\1{HIDDEN}", text))
    return TOKEN.sub(HIDDEN, _USER_ALONE.sub(f"{HIDDEN}@", text))


def scrubbed_argument(argument: str) -> str:
    """One word of a command line; what is named like a secret goes to the word's end."""
    return _SECRET_ARGUMENT.sub(rf"\1{HIDDEN}", argument)
