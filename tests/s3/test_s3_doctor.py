"""``recbatch doctor`` on a bucket of a real S3 server."""

from __future__ import annotations

import os

import obstore
import pytest
from s3_helpers import put
from seaweed import ADMIN, READER, User

from recbatch import s3
from recbatch.api import doctor
from recbatch.archive import Archive
from recbatch.health import Check, State


def of(url: str) -> list[Check]:
    return [check for check in doctor(url, models=False) if check.name == url]


def bad(checks: list[Check]) -> list[tuple[str, str, str]]:
    return [(check.state.value, check.text, check.remedy) for check in checks if check.state is not State.ok]


def keys(bucket: str) -> list[str]:
    answer = s3.Account().client().list_objects_v2(Bucket=bucket)  # the shared one keeps pages for the engine
    return [entry["Key"] for entry in answer.get("Contents", ())]


def test_all_is_well_with_an_empty_place_and_nothing_is_left_there(bucket: str) -> None:
    checks = of(f"s3://{bucket}/archive")
    assert bad(checks) == []
    texts = " ".join(check.text for check in checks)
    for part in (
        *("credentials by env", "answers", "can be listed", "clocks agree", "made only once"),
        *("replaced only as it was known", "no archive and no images there yet"),
    ):
        assert part in texts
    assert keys(bucket) == []
    assert ADMIN.secret_key not in texts


def test_an_archive_is_opened_through_the_same_account(bucket: str) -> None:
    Archive.create(f"s3://{bucket}/archive")
    before = keys(bucket)
    checks = of(f"s3://{bucket}/archive")
    assert [text for _, text, _ in bad(checks)] == ["never verified"]
    assert keys(bucket) == before


def test_nothing_is_written_into_a_source(bucket: str) -> None:
    put(bucket, "photos/a.jpg", b"x")
    texts = [check.text for check in of(f"s3://{bucket}/photos")]
    assert "no archive, so nothing is written there to try it" in texts
    assert "can be read" in texts
    assert texts[-1] == "no archive, but images, such as a.jpg: a source"


def test_read_only_credentials_are_told(bucket: str, as_user) -> None:
    as_user(READER)
    ((state, text, remedy),) = bad(of(f"s3://{bucket}/archive"))
    assert (state, text) == ("warning", "can't be written with these credentials")
    assert "s3:PutObject" in remedy


@pytest.mark.parametrize(
    ("user", "code"),
    [
        (User(access_key="admin-key", secret_key="quite-another-secret"), "SignatureDoesNotMatch"),
        (User(access_key="nobody", secret_key="quite-another-secret"), "InvalidAccessKeyId"),
    ],
)
def test_wrong_keys_are_a_problem_and_stay_secret(user: User, code: str, bucket: str, as_user) -> None:
    as_user(user)
    checks = of(f"s3://{bucket}/archive")
    ((state, text, remedy),) = bad(checks)
    assert (state, text) == ("problem", f"the store refuses these credentials ({code})")
    assert "AWS_" in remedy
    assert "quite-another-secret" not in " ".join(check.text + check.remedy for check in checks)


def test_a_missing_bucket_is_told(as_user) -> None:
    as_user()
    ((state, text, _),) = bad(of("s3://not-made-yet/archive"))
    assert (state, text) == ("problem", "there is no bucket 'not-made-yet'")


def test_no_bucket_no_credentials_and_a_dead_endpoint_are_told(
    as_user, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(url="http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", os.devnull)
    for url, says in (("s3://", "no bucket is named"), ("s3://a..b/x", "no bucket can be named 'a..b'")):
        assert [text for _, text, _ in bad(of(url))] == [says]
    texts = [text for _, text, _ in bad(of("s3://bucket/archive"))]
    assert texts[0] == "no AWS credentials were found"
    assert texts[1].startswith("127.0.0.1:1 does not answer")


def test_a_store_without_conditional_writes_is_a_problem(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = obstore.put

    def careless(store, name, data, *, mode="overwrite", **options):
        return whole(store, name, data, **options)

    monkeypatch.setattr(obstore, "put", careless)
    found = bad(of(f"s3://{bucket}/archive"))
    assert [text for _, text, _ in found] == [
        "the store lets an object be made twice",
        "the store replaces an object that has changed",
    ]
    assert keys(bucket) == []
