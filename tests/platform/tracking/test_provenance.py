"""What a run is made of is recorded whole, and secrets never."""

import json
from pathlib import Path

import pytest
from trained_run import TrainedRun

from spikeseg.platform.config.code_redaction import scrubbed_code
from spikeseg.platform.config.recipes import ConfigError, load_experiment
from spikeseg.platform.config.redaction import scrubbed
from spikeseg.platform.tracking.provenance import environment

SECRET = "s3cr3t-value-that-must-not-leak"
PLANTED = {
    "MLFLOW_TRACKING_PASSWORD": SECRET,
    "MLFLOW_TRACKING_TOKEN": SECRET,
    "RAY_AUTH_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "CUDA_API_KEY": SECRET,
    "MLFLOW_TRACKING_URI": f"http://user:{SECRET}@127.0.0.1:5000",
    "HTTP_PROXY": f"http://user:{SECRET}@127.0.0.1:3128",
    "SPIKESEG_NOTE": f"password={SECRET}",
    "SPIKESEG_DB_PASS": SECRET,
    "RAY_REDIS_PWD": SECRET,
    "SPIKESEG_PASSPHRASE": SECRET,
    "MLFLOW_SAS": SECRET,
    "RAY_JOB_CONFIG_JSON_ENV_VAR": f'{{"env_vars": {{"ANYTHING": "{SECRET}"}}}}',
    "SPIKESEG_JSON": f'{{"api_key": "{SECRET}"}}',
    "SPIKESEG_MIRROR": f"s3://bucket/x?X-Amz-Signature={SECRET}&sig={SECRET}",
    "SPIKESEG_HEADER": f"Authorization: Bearer {SECRET}",
    "SPIKESEG_URL": f"postgresql://bob:a@{SECRET}/b@db",
    "MLFLOW_HH": f'{{"headers": {{"X-Auth": "{SECRET}", "X-Other": "{SECRET}"}}}}',
    "MLFLOW_HOOK": f'{{"X-Auth": "{SECRET}", "cookie": "{SECRET}"}}',
    "MLFLOW_EXTRA_HEADERS": f"X-Other: {SECRET}",
    "MLFLOW_TRACKING_USERNAME": SECRET,
    "SPIKESEG_LIST": f"passwords: [a, {SECRET}]",
    "SPIKESEG_TOKENS": f'["a", "{SECRET}"]',
    "SPIKESEG_ITEMS": f'{{"secrets": ["a", "{SECRET}"], "credentials": {{"a": "{SECRET}"}}}}',
    "SPIKESEG_HOST": f"user:{SECRET}@127.0.0.1:5432/db",
    "DATABASE_URL": f"postgresql://user:{SECRET}@127.0.0.1/db",
}


def test_variables_that_matter_are_kept_and_planted_secrets_are_not() -> None:
    wanted = {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "CUDA_VISIBLE_DEVICES": "0"}
    kept = environment({**PLANTED, **wanted, "HOME": "/home/somebody"})
    assert SECRET not in json.dumps(kept)
    assert wanted.items() <= kept.items()
    assert kept["MLFLOW_TRACKING_URI"] == "http://[hidden]@127.0.0.1:5000"
    assert "HOME" not in kept


@pytest.mark.parametrize(
    "line",
    [
        f"spikeseg train a --token {SECRET}",
        f"spikeseg train a --api-key={SECRET}",
        f"spikeseg sweep a --study postgresql://me:{SECRET}@127.0.0.1/x",
        f"MLFLOW_TRACKING_PASSWORD={SECRET} spikeseg train a",
        f'spikeseg train a \'{{"api_key": "{SECRET}"}}\'',
        f"spikeseg train a --study postgresql://me:x/{SECRET}@127.0.0.1/x",
        f"spikeseg train a --user bob:{SECRET}",
        f"spikeseg train a --db-pw={SECRET}",
        f"spikeseg train a AccountKey={SECRET};x",
        f"spikeseg train a https://h/?key={SECRET}",
        f"spikeseg train a Bearer {SECRET}",
    ],
)
def test_a_secret_on_the_command_line_is_hidden(line: str) -> None:
    assert SECRET not in scrubbed(line)
    assert "spikeseg" in scrubbed(line)


def test_no_planted_secret_reaches_any_record_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spikeseg.platform.checkpoint.run_folder import RunFolder
    from spikeseg.platform.train.tracked_training import make_journal

    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["spikeseg", "train", "x", "--token", SECRET])
    run = RunFolder(tmp_path / "run")
    run.claim()
    make_journal(load_experiment("shapes_tiny"), run, 1, {}).close()
    leaking = [
        str(file)
        for file in tmp_path.rglob("*")
        if file.is_file() and SECRET.encode() in file.read_bytes()
    ]
    assert not leaking
    assert (tmp_path / "run" / "journal" / "files" / "provenance.json").is_file()


def test_every_start_of_a_run_leaves_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spikeseg.platform.checkpoint.run_folder import RunFolder
    from spikeseg.platform.train.tracked_training import make_journal

    run = RunFolder(tmp_path / "run")
    lines = ["train shapes_tiny", "train --resume run", "train --resume run", "train --resume x"]
    for line in lines:
        monkeypatch.setattr("sys.argv", ["spikeseg", *line.split()])
        run.claim()
        make_journal(load_experiment("shapes_tiny"), run, 1, {}).close()
    made_of = json.loads((tmp_path / "run/journal/files/provenance.json").read_text())
    commands = [start["command"] for start in made_of["starts"]]
    assert commands == [f"spikeseg {line}" for line in (*lines[:2], lines[3])]
    assert (
        made_of["starts"][0]["log_every"] == load_experiment("shapes_tiny").config.trainer.log_every
    )


def test_a_run_records_code_packages_hardware_and_origins(trained: TrainedRun) -> None:
    folder = trained.folder / "journal" / "files"
    made_of = json.loads((folder / "provenance.json").read_text())
    assert made_of["packages"]["torch"].startswith("2.")
    assert len(made_of["packages"]) > 30
    assert made_of["hardware"]["cores"] >= 1
    assert made_of["seed"] == 1
    assert len(made_of["code"]["digest"]) == 64
    assert made_of["origins"]["trainer.max_steps"] == "command line"
    file, _, line = made_of["origins"]["model.num_classes"].rpartition(":")
    assert file.endswith("shapes_tiny.yaml")
    assert "num_classes" in Path(file).read_text().splitlines()[int(line) - 1]


TOKENS = (
    "AKIA" + "IOSFODNN7EXAMPLE",
    "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345",
    "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345",
    "xoxb-" + "1234567890-abcdefghij",
    "sk-" + "proj-0123456789abcdefghij",
    "AIza" + "SyD0123456789abcdefghijABCDEFGHIJ01234",
    "npm_" + "0123456789abcdefghijABCDEFGHIJ012345",
    "sk_live_" + "0123456789abcdefghijABCD",
)


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:4])
def test_a_token_of_a_form_that_everybody_knows_is_hidden_whatever_its_name(token: str) -> None:
    assert token not in environment({"MLFLOW_NOTE": f"see {token}!"})["MLFLOW_NOTE"]
    assert scrubbed_code(f'+NOTE = "see {token}"') == '+NOTE = "see [hidden]"'


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        (f'+DSN = "postgresql://u:{SECRET}@h/db"', '+DSN = "postgresql://[hidden]@h/db"'),
        (f'+DSN = "u:{SECRET}@h/db"', '+DSN = "[hidden]@h/db"'),
        (f'+AWS_SECRET = ("{SECRET}")', '+AWS_SECRET = ("[hidden]")'),
        (f"+AWS_SECRET = (\n+    '{SECRET}'\n+)", "+AWS_SECRET = (\n+    '[hidden]'\n+)"),
        (f'+api_token: str = "{SECRET}"', '+api_token: str = "[hidden]"'),
        (f'+TOKENS = ["{SECRET}", "{SECRET}"]', '+TOKENS = ["[hidden]", "[hidden]"]'),
        (f'+    "X-Auth": b"{SECRET}",', '+    "X-Auth": b"[hidden]",'),
        (f"+# password: {SECRET}", "+# password: [hidden]"),
        (f'+API_KEY: str | None = "{SECRET}"', '+API_KEY: str | None = "[hidden]"'),
        (f'+TOKEN: Final[str] = "{SECRET}"', '+TOKEN: Final[str] = "[hidden]"'),
        (f'+os.environ["MY_API_KEY"] = "{SECRET}"', '+os.environ["MY_API_KEY"] = "[hidden]"'),
        (f'+a = os.environ.get("TOKEN", "{SECRET}")', '+a = os.environ.get("TOKEN", "[hidden]")'),
        (f'+token = """{SECRET}"""', '+token = """[hidden]"""'),
        (f'+if (token := "{SECRET}"):', '+if (token := "[hidden]"):'),
        (f'+u = "https://h/?token={SECRET}"', '+u = "https://h/?token=[hidden]"'),
        (f'+run("--password={SECRET}")', '+run("--password=[hidden]")'),
        (f'+run("--password", "{SECRET}")', '+run("--password", "[hidden]")'),
        (f'+get(u, auth=("bob", "{SECRET}"))', '+get(u, auth=("bob", "[hidden]"))'),
        (
            f"diff --git a/new.yaml b/new.yaml\n+password: {SECRET}\n+crop: 48\n",
            "diff --git a/new.yaml b/new.yaml\n+password: [hidden]\n+crop: 48\n",
        ),
    ],
)
def test_a_secret_in_code_is_hidden_and_the_code_stays(line: str, hidden: str) -> None:
    assert scrubbed_code(line) == hidden
    assert scrubbed_code(hidden) == hidden


@pytest.mark.timeout(60)
def test_a_long_word_is_read_once() -> None:
    # Read anew from every letter, a word of two million would take days.
    word = "a" * 2_000_000
    assert word in scrubbed(f"+x = '{word}'")
    assert scrubbed_code(f"+x = '{word}'\n") == "+[a line of 2000008 characters is left out]\n"


def test_code_and_settings_without_secrets_stay_as_they_are() -> None:
    import spikeseg

    (root,) = spikeseg.__path__
    for path in Path(root, "model").rglob("*.py"):
        assert scrubbed_code(path.read_text()) == path.read_text(), path
    for text in (
        "RAY_AUTH_MODE=token",
        "ghcr.io/org/image:tag@sha256:0123",
        "authors=Somebody data.path=/a/b:c",
        f"data.path=/cache/shapes_{'0a' * 32}",
        "spikeseg train shapes_tiny data.transform.crop=[48, 48] trainer.threads=2",
    ):
        assert scrubbed(text) == text


@pytest.mark.parametrize(
    "text",
    [
        f'"password=two {SECRET}"',
        f"'--api-key=two {SECRET}'",
        f'{{\\"secret\\": \\"{SECRET}\\"}}',
        f'refresh_token="a\\"{SECRET}"',
    ],
)
def test_a_secret_with_blanks_or_escaped_quotes_is_hidden_whole(text: str) -> None:
    assert SECRET not in scrubbed(text)
    assert scrubbed(scrubbed(text)) == scrubbed(text)


def test_a_configuration_with_a_password_in_an_address_is_refused() -> None:
    for address in (
        "s3://me:hunter2@bucket/x",
        "file:///x?secret=hunter2",
        "s3://b/x?endpoint_override=http%3A%2F%2Fu%3Ahunter2@h",
        "s3://b/x?endpoint_override=http%3A%2F%2Fu%3Ahunter2%40h",
        TOKENS[1],
    ):
        with pytest.raises(
            ConfigError, match=r"command line: trainer\.mirror: an address must not"
        ):
            load_experiment("shapes_tiny", [f"trainer.mirror={address}"])


def test_a_long_word_of_language_is_no_token() -> None:
    path = "/data/runs_averyveryverylongfoldername"
    assert load_experiment("shapes_tiny", [f"data.path={path}"]).config.data.path == path
