"""Where keys come from, and that they are asked for again: a token that expires midway is renewed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_helpers import image
from s3_helpers import found, put, put_all, run
from seaweed import ADMIN, OTHER, Seaweed, User

from recbatch import s3
from recbatch.archive import Archive
from recbatch.engine.remote import read_remote

PROCESS = """
import datetime, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
access, secret, lives_s = json.loads((folder / "keys.json").read_text())
with open(folder / "asked", "a") as file:
    file.write(access + "\\n")
expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=lives_s)
print(json.dumps({"Version": 1, "AccessKeyId": access, "SecretAccessKey": secret, "Expiration": expires.isoformat()}))
"""


class Source:
    """A profile whose keys come from a program, and expire; ``gives`` says which keys, and for how long."""

    def __init__(self, folder: Path, server: Seaweed) -> None:
        self.folder = folder
        (folder / "process.py").write_text(PROCESS)
        (folder / "config").write_text(
            f"[profile job]\nregion = us-east-1\nendpoint_url = {server.url}\n"
            f"credential_process = {sys.executable} {folder / 'process.py'} {folder}\n"
        )

    def gives(self, user: User, lives_s: float) -> None:
        (self.folder / "keys.json").write_text(json.dumps([user.access_key, user.secret_key, lives_s]))

    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().split()


@pytest.fixture
def source(
    bucket: str,
    as_user: Callable[..., None],
    seaweed: Seaweed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Source:
    made = Source(tmp_path, seaweed)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "job")
    return made


def test_a_profile_with_a_credential_process_serves_source_and_archive(bucket: str, source: Source) -> None:
    source.gives(ADMIN, 3600)
    written = put_all(bucket, ["in/a.png", "in/b.png"])
    archive = f"s3://{bucket}/archive"
    assert run(f"s3://{bucket}/in", archive).images == 2
    assert Archive.open(archive)["a.png"].stream == written["in/a.png"]
    assert [row.key for row in Archive.open(archive).records(where="key = 'a.png'")] == ["a.png"]
    assert len(source.asked()) == 1  # it lives long


def test_keys_that_expire_midway_are_renewed_for_every_library(bucket: str, source: Source) -> None:
    """Keys that live a minute are asked for again at each use; the first ones are no use any more then."""
    source.gives(ADMIN, 60)
    put(bucket, "a.png", b"x")
    items, _ = found(f"s3://{bucket}")
    archive = Archive.create(f"s3://{bucket}/archive")
    archive.put_object("x", b"1")
    before = len(source.asked())
    source.gives(OTHER, 60)
    s3.account().client()  # the very same client and account as before: nothing starts anew
    assert s3.account().keys().access_key_id == OTHER.access_key
    assert read_remote(items[0], 100).data == b"x"
    epoch = archive.claim_epoch("job")
    archive.commit([("0", archive.write_file([image("k")], stem="s"))], job="job", epoch=epoch)
    assert set(source.asked()[before:]) == {OTHER.access_key}
    assert archive.store.storage_options["AWS_ACCESS_KEY_ID"] == OTHER.access_key


def test_a_credentials_file_that_is_rewritten_is_read_anew(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "credentials"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    template = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    path.write_text(template.format(ADMIN.access_key, ADMIN.secret_key))
    put(bucket, "a.png", b"x")
    items, _ = found(f"s3://{bucket}")
    path.write_text(template.format(OTHER.access_key, OTHER.secret_key))
    assert s3.account().keys().access_key_id == ADMIN.access_key  # within the minute
    monkeypatch.setattr(s3, "KEYS_LIVE_S", 0)
    assert s3.account().keys().access_key_id == OTHER.access_key
    assert read_remote(items[0], 100).data == b"x"


def test_keys_that_were_refused_are_looked_for_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token in the file expired, and someone has put a new one there: the next read finds it."""
    path = tmp_path / "credentials"
    put(bucket, "a.png", b"x")
    items, _ = found(f"s3://{bucket}")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    template = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    path.write_text(template.format("expired-key", "expired-secret"))
    assert s3.account().keys().access_key_id == "expired-key"
    path.write_text(template.format(ADMIN.access_key, ADMIN.secret_key))
    assert s3.account().keys().access_key_id == "expired-key"
    assert read_remote(items[0], 100).data == b"x"


def test_the_endpoint_for_s3_goes_before_the_one_for_all(
    bucket: str, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "a.png", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.url + "/")
    assert len(found(f"s3://{bucket}")[0]) == 1
    Archive.create(f"s3://{bucket}/archive")
    assert list(Archive.open(f"s3://{bucket}/archive")) == []


def test_a_token_is_sent_along(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    assert s3.account().keys().token == "a-token"
    assert s3.account().delta_options()["AWS_SESSION_TOKEN"] == "a-token"


@pytest.mark.parametrize("name", ["AWS_SKIP_SIGNATURE", "AWS_NO_SIGN_REQUEST"])
def test_a_public_bucket_is_read_without_keys(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    put(bucket, "in/a.png", b"x")
    Archive.create(f"s3://{bucket}/archive")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
    s3.account().client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv(name, "true")
    items, _ = found(f"s3://{bucket}/in")
    assert read_remote(items[0], 100).data == b"x"
    assert list(Archive.open(f"s3://{bucket}/archive")) == []
