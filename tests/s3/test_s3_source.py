"""A bucket as a source: every key under its own name, every object in one state, every refusal in a sentence."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from proxy import Proxy, Times
from s3_helpers import data_of, found, put, put_all
from seaweed import READER, Seaweed, User

from recbatch import s3
from recbatch.engine import errors
from recbatch.engine.remote import find_remote, read_remote
from recbatch.engine.source import Choice, Tally, find_items
from recbatch.errors import UsageError

As = Callable[..., None]
LIMIT = 1 << 20


def get(request):
    return request.method == "GET" and ".png" in request.path


@pytest.fixture(scope="module", params=[5_010, pytest.param(20_000, marks=pytest.mark.long)])
def many(seaweed: Seaweed, request) -> tuple[str, list[str]]:
    """A bucket of many objects, and the keys under in/."""
    keys = [f"in/{number % 7}/{number:05}.png" for number in range(request.param)]
    name = f"many-{request.param}"
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in seaweed.environment().items():
            patch.setenv(variable, value)
        s3.account().client().create_bucket(Bucket=name)
        put_all(name, [*keys, "in/notes.txt", "index/other.png"], size=20)
    return name, sorted(key.removeprefix("in/") for key in keys)


def test_a_prefix_of_more_than_five_pages_is_listed_whole_and_sorted(bucket: str, many) -> None:
    name, keys = many
    items, tally = found(f"s3://{name}/in")
    assert [item.key for item in items] == keys
    assert tally.skipped == 1
    assert items[7].etag
    assert items[7].size == 20
    assert items[7].mtime_ns > 0


def test_listing_is_lazy_page_by_page_and_goes_on_after_faults(proxy: Proxy, many) -> None:
    name, keys = many
    items = find_remote(f"s3://{name}/in", Choice().takes, Tally())
    next(items)
    assert len(proxy.log) == 1
    faults = [Times(fault, 1, lambda request: "list-type" in request.query) for fault in ("slow_down", "cut")]
    proxy.plan = lambda request: next(filter(None, (fault(request) for fault in faults)), None)
    assert len(list(items)) == len(keys) - 1
    assert proxy.spoilt() == 2


ODD = [
    *("a b.png", "a%20b.png", "a+b.png", "ü/é.png", "émoji😀.png", "\u0301.png", "#?&=.png", "*[x].png"),
    *('"q".png', "<x>&amp;.png", "new\nline.png", "t\tab.png", " lead.png", "trail .png", "~.png", "%.png"),
]


def test_keys_of_any_kind_are_listed_and_read_under_their_own_names(bucket: str) -> None:
    written = {key: data_of(key) for key in ODD}
    for key, data in written.items():
        put(bucket, key, data)
    for source, strip in ((f"s3://{bucket}", ""), (f"s3://{bucket}/", ""), (f"s3://{bucket}/ü", "ü/")):
        items, _ = found(source)
        expected = {key: data for key, data in written.items() if key.startswith(strip)}
        assert {strip + item.key: read_remote(item, LIMIT).data for item in items} == expected


def test_a_folder_object_is_no_item_even_when_all_are_taken(bucket: str) -> None:
    for key in ("in/", "in/x.png/", "in/sub/"):
        put(bucket, key, b"")
    put(bucket, "in/sub/a.png", b"a")
    items, tally = found(f"s3://{bucket}/in", "*")
    assert [item.key for item in items] == ["sub/a.png"]
    assert tally.skipped == 0


SLASHES = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>%s</ListBucketResult>"""
ENTRY = """<Contents><Key>%s</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>
<ETag>&quot;e&quot;</ETag><Size>4</Size></Contents>"""


def test_keys_that_seaweedfs_would_mend_are_kept_as_amazon_gives_them(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS folds '//' and refuses '..'; Amazon's store keeps them. Its answer is written out here."""
    keys = ["in//a.png", "in/../b.png", "in/./c.png", "in/d+%2B.png"]
    page = SLASHES % "".join(ENTRY % key for key in keys)
    client = s3.account().client()

    def answer(**_):
        class Answer:
            status_code, headers, content, text = 200, {}, page.encode(), page

        return Answer()

    client.meta.events.register("before-send.s3.ListObjectsV2", answer)
    items, _ = found(f"s3://{bucket}/in")
    assert [item.key for item in items] == ["/a.png", "../b.png", "./c.png", "d +.png"]
    assert items[0].uri == f"s3://{bucket}/in//a.png"
    assert items[0].mtime_ns == 1_767_323_045_678_000_000
    s3._account.cache_clear()  # the client with the written answer


def test_one_object_is_a_source_whatever_its_name(bucket: str) -> None:
    put(bucket, "in/a.dat", b"x")
    items, _ = found(f"s3://{bucket}/in/a.dat")
    assert [(item.key, read_remote(item, LIMIT).data) for item in items] == [("a.dat", b"x")]


def test_a_missing_bucket_and_a_missing_prefix_are_no_source(bucket: str) -> None:
    for source in ("s3://no-such-bucket-here", "s3://no-such-bucket-here/in", f"s3://{bucket}/none"):
        with pytest.raises(errors.SourceNotFound) as raised:
            found(source)
        says_bucket = "There is no bucket named 'no-such-bucket-here'" in str(raised.value)
        assert says_bucket == ("no-such-bucket" in source)


@pytest.mark.parametrize("source", ["s3://", "s3:///in", "s3://my photos/in", "s3://a..b/in"])
def test_a_url_without_a_possible_bucket_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="no bucket"):
        found(source)


@pytest.mark.parametrize(
    ("user", "says"),
    [
        (User(access_key="reader-key", secret_key="wrong"), "SignatureDoesNotMatch"),
        (User(access_key="nobody", secret_key="wrong"), "InvalidAccessKeyId"),
    ],
)
def test_a_wrong_secret_and_an_unknown_key_are_said(bucket: str, as_user: As, user: User, says: str) -> None:
    put(bucket, "a.png", b"x")
    items, _ = found(f"s3://{bucket}")
    as_user(user)
    for read in (lambda: found(f"s3://{bucket}"), lambda: read_remote(items[0], LIMIT)):
        with pytest.raises(errors.SourceUnreadable, match=says) as raised:
            read()
        assert str(raised.value).count(". ") == 1  # what; what to do: not the store's own advice as well
        assert "AWS_" in str(raised.value).partition(". ")[2]


def test_no_credentials_at_all_are_said(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(errors.SourceUnreadable, match="credentials"):
        found(f"s3://{bucket}")


def test_a_profile_that_is_nowhere_defined_is_said(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "forgotten")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(errors.SourceUnreadable, match="forgotten"):
        found(f"s3://{bucket}")


def test_a_reader_reads(bucket: str, as_user: As) -> None:
    put(bucket, "a.png", b"x")
    as_user(READER)
    items, _ = found(f"s3://{bucket}")
    assert read_remote(items[0], LIMIT).data == b"x"


def test_an_object_deleted_after_listing_has_vanished(bucket: str) -> None:
    put(bucket, "a.png", b"x")
    items, _ = found(f"s3://{bucket}")
    s3.account().client().delete_object(Bucket=bucket, Key="a.png")
    with pytest.raises(errors.SourceVanished):
        read_remote(items[0], LIMIT)


def test_an_object_replaced_after_listing_is_read_in_its_new_state(bucket: str) -> None:
    put(bucket, "a.png", b"old")
    items, _ = found(f"s3://{bucket}")
    same = read_remote(items[0], LIMIT)
    assert (same.data, same.etag, same.mtime_ns) == (b"old", items[0].etag, items[0].mtime_ns)
    tag = put(bucket, "a.png", b"newer")
    content = read_remote(items[0], LIMIT)
    assert (content.data, content.etag) == (b"newer", tag)


def test_an_object_that_grew_beyond_the_limit_is_refused(bucket: str) -> None:
    put(bucket, "a.png", b"x" * 10)
    items, _ = found(f"s3://{bucket}")
    with pytest.raises(errors.FileTooLarge):
        read_remote(items[0], 9)
    put(bucket, "a.png", b"x" * 20)
    with pytest.raises(errors.FileTooLarge, match="20 bytes"):
        read_remote(items[0], 15)


@pytest.mark.parametrize("fault", ["slow_down", "internal", "reset", "cut", "stall", "lost"])
def test_reading_goes_on_after_a_fault(proxy: Proxy, bucket: str, fault: str) -> None:
    put(bucket, "a.png", data_of("a", 5_000))
    items, _ = found(f"s3://{bucket}")
    proxy.plan = Times(fault, 1, get)
    assert read_remote(items[0], LIMIT).data == data_of("a", 5_000)
    assert proxy.spoilt() == 1


def test_an_object_that_is_forbidden_is_that_objects_fault(proxy: Proxy, bucket: str, monkeypatch) -> None:
    import proxy as proxies

    put(bucket, "a.png", b"x")
    items, _ = found(f"s3://{bucket}")
    monkeypatch.setitem(proxies.CODES, "internal", (403, "AccessDenied"))
    proxy.plan = Times("internal", 9, get)
    with pytest.raises(errors.UnreadableFile, match="AccessDenied"):
        read_remote(items[0], LIMIT)
    monkeypatch.setitem(proxies.CODES, "internal", (403, "InvalidObjectState"))
    with pytest.raises(errors.UnreadableFile, match="archival"):
        read_remote(items[0], LIMIT)


@pytest.mark.long  # it waits ten seconds; test_s3_archive has the same of an archive
def test_a_dead_endpoint_is_said_within_half_a_minute(bucket: str, as_user: As) -> None:
    as_user(url="http://127.0.0.1:9")  # nobody listens there
    start = time.monotonic()
    with pytest.raises(errors.SourceUnreadable, match="Could not connect"):
        found(f"s3://{bucket}")
    assert time.monotonic() - start < 30


def test_an_archive_inside_the_source_is_left_out(bucket: str) -> None:
    for key in ("a.png", "arc/_recbatch/b.png", "archive.png"):
        s3.account().client().put_object(Bucket=bucket, Key=key, Body=b"x")
    found = find_items(f"s3://{bucket}", archive=f"s3://{bucket}/arc", tally=(tally := Tally()))
    assert [item.key for item in found] == ["a.png", "archive.png"]
    assert tally.skipped == 1
    with pytest.raises(UsageError, match="the same place"):
        list(find_items(f"s3://{bucket}/arc", archive=f"s3://{bucket}/arc/", tally=Tally()))
