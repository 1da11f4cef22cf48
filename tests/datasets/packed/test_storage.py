"""Locations as messages show them: where, but never with which key."""

from types import SimpleNamespace

import pytest

from spikeseg.datasets.packed import storage
from spikeseg.datasets.packed.storage import Storage, without_secrets
from spikeseg.datasets.spec import DataError

KEY, SECRET = "AKIAEXAMPLE", "wJalrXUt/nFEMI"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"s3://{KEY}:{SECRET}@bucket/camvid", "s3://bucket/camvid"),
        (f"s3://{KEY}:a@b/c@bucket/camvid", "s3://bucket/camvid"),
        (
            f"s3://bucket/camvid?secret_key={SECRET}&region=eu",
            "s3://bucket/camvid?secret_key=[hidden]&region=eu",
        ),
        (f"abfs://bucket/x?sas_token={SECRET}", "abfs://bucket/x?sas_token=[hidden]"),
        ("s3://bucket/camvid?scheme=http", "s3://bucket/camvid?scheme=http"),
        ("file:///data/me@home/camvid", "file:///data/me@home/camvid"),
        ("data/me@home/camvid", "data/me@home/camvid"),
    ],
)
def test_a_location_is_shown_without_its_secrets(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


@pytest.mark.parametrize(
    "uri",
    [
        # A slash in the secret, as many have, is no valid URI.
        f"s3://{KEY}:{SECRET}@bucket/camvid",
        f"gopher://{KEY}:{SECRET}@bucket/camvid",
        f"s3://{KEY}:very%secret@bucket/camvid?secret_key={SECRET}",
    ],
    ids=["slash in it", "unknown kind", "in two places"],
)
def test_no_secret_is_in_the_error_of_a_location_that_cannot_be_opened(uri: str) -> None:
    with pytest.raises(
        DataError, match=r"bucket/camvid.*: not a location that can be op"
    ) as caught:
        Storage.at(uri)
    for secret in (KEY, SECRET, *SECRET.split("/"), "very%secret"):
        assert secret not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_s3_location_is_opened_and_shown_without_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = Storage.at(f"s3://{KEY}:secret@bucket/camvid?region=eu-west-1")
    assert found.location == "s3://bucket/camvid?region=eu-west-1"
    assert found.root == "bucket/camvid"


def test_a_part_of_a_secret_that_the_library_repeats_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(uri: str) -> None:
        raise ValueError("'wJalrXUt' is no port")

    library = SimpleNamespace(FileSystem=SimpleNamespace(from_uri=refuse))
    monkeypatch.setattr(storage, "fs", library)
    with pytest.raises(DataError, match=r"^s3://bucket: not a .*\('\[hidden\]' is no port\)$"):
        Storage.at(f"s3://{KEY}:{SECRET}@bucket")
