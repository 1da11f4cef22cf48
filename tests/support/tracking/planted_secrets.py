"""Kinds of places where people leave secrets in code, and code that looks alike and has none."""

from typing import NamedTuple

WORD = "Tr0ub4dor-and-3-horses"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"
AWS_ID = "AKIA" + "IOSFODNN7EXAMPLE"
AWS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY"
BASE64 = "dGhpcyBpcyBhIHNlY3JldCBrZXkgb2YgdGhpcnR5dHdv" + "MTIzNA=="


class Planted(NamedTuple):
    """One kind of place.

    Attributes:
        kind: What it is.
        file: Name of the file that it stands in.
        lines: The file's lines.
        secrets: What must not be read in any record.
        recognised: Whether a difference that is recorded on request hides it.
    """

    kind: str
    file: str
    lines: tuple[str, ...]
    secrets: tuple[str, ...]
    recognised: bool = True


def _python(kind: str, *lines: str, secret: str = WORD, recognised: bool = True) -> Planted:
    return Planted(kind, "new.py", lines, (secret,), recognised)


def _yaml(kind: str, *lines: str, secret: str = WORD) -> Planted:
    return Planted(kind, "new.yaml", lines, (secret,))


PLANTED = (
    _python("assignment", f'password = "{WORD}"'),
    _python("passphrase", 'passphrase = "correct horse battery"', secret="horse battery"),
    _python("passphrase in a dictionary", 'd = {"password": "my 2 words"}', secret="2 words"),
    _python("annotated assignment", f'API_KEY: str | None = "{WORD}"'),
    _python("assignment in brackets", "secret = (", f'    "{WORD}"', ")"),
    _python("adjacent strings", "secret = (", '    "harmless"', f'    "{WORD}"', ")"),
    _python("string continued by a backslash", "secret = \\", f'    "{WORD}"'),
    _python("list under a name", f'TOKENS = ["{WORD}a", "{WORD}"]'),
    _python("list over lines", "TOKENS = [", f'    "{WORD}a",', f'    "{WORD}",', "]"),
    Planted("second of a pair", "new.py", (f'aws = ("{AWS_ID}", "{AWS_KEY}")',), (AWS_ID, AWS_KEY)),
    _python("default of a parameter", f'def login(user: str, password: str = "{WORD}"): ...'),
    _python("keyword argument", f'connect("host", password="{WORD}")'),
    _python("keyword key", f'wandb.login(key="{HEX}")', secret=HEX),
    _python("keyword key, bare name", f'login(key="{WORD}")'),
    _python("environment", f'os.environ["MY_API_KEY"] = "{WORD}"'),
    _python("environment, harmless name", f'os.environ["WANDB"] = "{HEX}"', secret=HEX),
    _python("environment, default", f'os.environ.get("TOKEN", "{WORD}")'),
    _python("environment, setdefault", f'os.environ.setdefault("TOKEN", "{WORD}")'),
    _python("putenv", f'os.putenv("DB_PASS", "{WORD}")'),
    _python("webhook", f'HOOK = "https://chat.test/api/webhooks/1234567/{BASE64}"', secret=BASE64),
    _python("webhook of a known service", f'HOOK = "https://hooks.slack.com/services/T0/B0/{HEX}"'),
    _python("address with user", f'DSN = "postgresql://bob:{WORD}@db/x"'),
    _python("address with user, no scheme", f'DSN = "bob:{WORD}@db/x"'),
    _python("address with a query", f'get("https://h/x?access_token={WORD}&a=1")'),
    _python("format string", f'url = f"https://{{host}}/?token={WORD}"'),
    _python("positional after a name", f'subprocess.run(["mysql", "--password", "{WORD}"])'),
    _python("positional password", f'smtp.login("bob", "{WORD}")'),
    _python("positional, plain word", 'connect("host", "bob", "hunter22")', secret="hunter22"),
    _python("harmless name", 'CITY = "hunter22"', secret="hunter22", recognised=False),
    _python("joined letters", 'X = "".join(["hun", "ter22"])', secret="ter22", recognised=False),
    _python("password on the next line", "# the password:", f'X = "{WORD}"'),
    _python(
        "password on the next line of a call", "login(", "    password=", f'    "{WORD}",', ")"
    ),
    _python("comment", f"# password: {WORD}"),
    _python("comment in words", f"# the password is {WORD}"),
    _python("comment behind code", f'x = 1  # token "{WORD}"'),
    _python("docstring", '"""Call it with', "", f"    --token {WORD}", '"""'),
    _python("docstring, assignment", '"""Set', f"    PASSWORD={WORD}", '"""'),
    _python("dictionary", f'config = {{"user": "bob", "password": "{WORD}"}}'),
    _python("dictionary over lines", "headers = {", f'    "X-Auth": "{WORD}",', "}"),
    _python("bytes", f'SECRET_KEY = b"{WORD}"'),
    _python("triple quotes", 'token = """', WORD, '"""'),
    _python("authorization header", f'h = {{"Authorization": "Bearer {BASE64}"}}', secret=BASE64),
    _python("basic authorization", f'get(u, auth=("bob", "{WORD}"))'),
    _python("long random word", f'X = "{AWS_KEY}"', secret=AWS_KEY),
    _python("private key", 'K = """-----BEGIN RSA PRIVATE KEY-----', BASE64, '"""', secret=BASE64),
    _python("comparison", f'if token == "{WORD}": ...'),
    _python("walrus", f'if (token := "{WORD}"): ...'),
    _python("JSON in a string", f"""x = '{{"api_key": "{WORD}"}}'"""),
    _yaml("YAML value", f"password: {WORD}"),
    _yaml("YAML quoted value", f'password: "{WORD}"'),
    _yaml("YAML list", "passwords:", "  - harmless", f"  - {WORD}"),
    _yaml("YAML flow list", f"passwords: [a, {WORD}]"),
    _yaml("YAML block", "token: |", f"  {WORD}"),
    _yaml("YAML folded block", "token: >-", "  one", f"  {WORD}"),
    _yaml("YAML nested value", "credentials:", "  user: bob", f"  value: {WORD}"),
    _yaml("YAML nested deeper", "auth:", "  db:", f"    value: {WORD}", "crop: 3"),
    _yaml("YAML list of pairs", "env:", "  - name: DB_PASSWORD", f"    value: {WORD}"),
    _yaml("YAML comment", f"crop: 3  # password {WORD}"),
)
"""Each kind once; those that nobody can recognise say so."""
