from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from archive_helpers import image, noise
from deltalake import DeltaTable

import recbatch.archive
from recbatch.archive import (
    TABLE,
    Archive,
    ArchiveNotFound,
    ArchiveTooNew,
    CorruptArchive,
    InvalidLocation,
    InvalidRecord,
    MissingModel,
    NotAnArchive,
    TornLog,
    errors,
)
from recbatch.archive.store import Store, plain
from recbatch.errors import RecbatchError

Add = Callable[..., str]


def rewrite_entry(archive: Archive, version: int, change: Callable[[str], str]) -> Path:
    path = Path(archive.url, "_delta_log", f"{version:020}.json")
    path.write_text(change(path.read_text()))
    return path


# --- addresses


@pytest.mark.parametrize(
    "name", ["plain", "with space", "münchen", "a%b", "a#b?c", "a+b&c", "[x]", "a:b", "-x"]
)
def test_archives_may_lie_in_folders_of_any_usual_name(tmp_path: Path, name: str) -> None:
    archive = Archive.create(tmp_path / name)
    file = archive.write_file([image("a")], stem="s")
    archive.commit([("0", file)], job="job", epoch=archive.claim_epoch("job"))
    assert archive.url == str(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    assert list(Archive.open((tmp_path / name).as_uri())) == ["a"]
    assert [record.key for record in archive.records(where="width = 40")] == ["a"]


def test_relative_paths_and_home_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Store("a/../b/").url == str(tmp_path / "b")
    assert Store("~/c").url == str(tmp_path / "home" / "c")


@pytest.mark.parametrize(
    "url",
    ["", "file://", "a%20b", "a\\b", "a\nb", "ftp://host/x", "http://host/x", "s3://", "file://elsewhere/x"],
)
def test_addresses_that_no_archive_can_have_are_refused(url: str) -> None:
    with pytest.raises(InvalidLocation):
        Archive.create(url)


def test_s3_addresses_are_normalised_and_plain_http_is_allowed_only_where_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_S3_ALLOW_UNSAFE_RENAME", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert Store("s3a://bucket/a/b/").table_uri == "s3://bucket/a/b"
    assert "AWS_ALLOW_HTTP" not in (Store("s3://bucket/a").storage_options or {})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert (Store("s3://bucket/a").storage_options or {})["AWS_ALLOW_HTTP"] == "true"
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    with pytest.raises(InvalidLocation, match="AWS_S3_ALLOW_UNSAFE_RENAME"):
        _ = Store("s3://bucket/a").storage_options


# --- opening and creating


def test_nothing_there_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveNotFound, match="recbatch compress"):
        Archive.open(tmp_path / "nothing")
    with pytest.raises(ArchiveNotFound):
        Archive.open(tmp_path)  # an empty folder


def test_a_folder_of_other_things_and_a_file_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for place in (tmp_path, tmp_path / "photo.jpg"):
        for call in (Archive.open, Archive.create):
            with pytest.raises(NotAnArchive):
                call(place)
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_another_delta_table_is_no_archive(tmp_path: Path) -> None:
    DeltaTable.create(tmp_path / "sales", pa.schema([("amount", pa.int64())]))
    with pytest.raises(NotAnArchive, match="did not make"):
        Archive.open(tmp_path / "sales")
    with pytest.raises(NotAnArchive):
        Archive.create(tmp_path / "sales", exist_ok=True)


def test_creating_twice_is_an_error_unless_allowed(archive: Archive, add: Add) -> None:
    add(image("a"))
    with pytest.raises(NotAnArchive, match="already"):
        Archive.create(archive.url)
    assert list(Archive.create(archive.url, exist_ok=True)) == ["a"]


def test_an_archive_keeps_to_the_protocol_that_every_reader_knows(archive: Archive, add: Add) -> None:
    for number in range(12):
        add(image(str(number)))
    protocol = DeltaTable(archive.url).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    assert archive.properties["recbatch.format"] == "1"
    assert archive.properties["delta.checkpointInterval"] == "10"
    assert DeltaTable(archive.url).metadata().partition_columns == []
    assert any(name.endswith(".checkpoint.parquet") for name in os.listdir(Path(archive.url, "_delta_log")))
    assert len(Archive.open(archive.url)) == 12


@pytest.mark.parametrize("found", ["2", "2.1", "10", "next"])
def test_a_newer_format_is_refused_with_its_number(archive: Archive, found: str) -> None:
    rewrite_entry(
        archive, 0, lambda text: text.replace('"recbatch.format":"1"', f'"recbatch.format":"{found}"')
    )
    with pytest.raises(ArchiveTooNew, match=f"format {found}.*Install a newer"):
        Archive.open(archive.url)


def test_a_newer_minor_of_the_format_is_read(archive: Archive) -> None:
    rewrite_entry(archive, 0, lambda text: text.replace('"recbatch.format":"1"', '"recbatch.format":"1.7"'))
    assert list(Archive.open(archive.url)) == []


@pytest.mark.parametrize(
    "protocol",
    [
        {"minReaderVersion": 9, "minWriterVersion": 9},
        {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["later"],
            "writerFeatures": ["later"],
        },
    ],
)
def test_a_newer_delta_protocol_is_refused(archive: Archive, add: Add, protocol: dict[str, object]) -> None:
    add(image("a"))
    rewrite_entry(archive, archive.version, lambda text: text + json.dumps({"protocol": protocol}) + "\n")
    with pytest.raises(ArchiveTooNew, match="Delta"):
        Archive.open(archive.url)


def test_a_torn_log_entry_is_named_and_moving_it_away_helps(archive: Archive, add: Add) -> None:
    add(image("a"))
    add(image("b"))
    path = rewrite_entry(archive, archive.version, lambda text: text[: len(text) // 2])
    with pytest.raises(TornLog, match=path.name) as raised:
        Archive.open(archive.url)
    assert raised.value.exit_status == 4
    assert "<unknown>" not in str(raised.value)
    path.unlink()
    assert list(Archive.open(archive.url)) == ["a"]


def test_a_hole_in_the_log_is_damage(archive: Archive, add: Add) -> None:
    add(image("a"))
    Path(archive.url, "_delta_log", f"{1:020}.json").unlink()
    with pytest.raises(CorruptArchive):
        Archive.open(archive.url)


def test_a_table_that_lost_a_column_is_damage(tmp_path: Path) -> None:
    schema = TABLE.remove(TABLE.get_field_index("stream"))
    options = {"recbatch.format": "1"}
    DeltaTable.create(tmp_path / "a", schema, configuration=options, raise_if_key_not_exists=False)
    with pytest.raises(CorruptArchive, match="column stream is missing"):
        Archive.open(tmp_path / "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(errors.ArchiveNotWritable):
        Archive.create(tmp_path / "a")
    tmp_path.chmod(0o700)


# --- models and the ledger


def test_models_are_kept_once_under_their_digest(archive: Archive) -> None:
    weights = noise("weights", 3000)
    digest = hashlib.sha256(weights).hexdigest()
    archive.put_model(digest, weights)
    path = Path(archive.url, "_recbatch", "models", f"{digest}.safetensors")
    before = path.stat()
    archive.put_model(digest, weights)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert archive.models() == [digest]
    assert archive.model(digest[:16]) == archive.model(digest) == weights
    assert os.listdir(path.parent) == [path.name]


def test_a_torn_model_is_mended_by_putting_it_again(archive: Archive) -> None:
    weights = noise("weights", 3000)
    digest = hashlib.sha256(weights).hexdigest()
    archive.put_model(digest, weights)
    path = Path(archive.url, "_recbatch", "models", f"{digest}.safetensors")
    path.write_bytes(weights[:100])
    with pytest.raises(CorruptArchive, match=digest):
        archive.model(digest)
    archive.put_model(digest, weights)
    assert archive.model(digest) == weights


def test_models_of_another_digest_or_none_are_refused(archive: Archive) -> None:
    with pytest.raises(InvalidRecord):
        archive.put_model("0" * 64, b"weights")
    for prefix in ("", "00"):
        with pytest.raises(MissingModel):
            archive.model(prefix)


def test_the_ledger_keeps_objects_beside_the_table(archive: Archive) -> None:
    archive.put_object("plans/p.json", b"1")
    archive.put_object("plans/p.json", b"22")
    assert archive.put_object_once("jobs/j.json", b"first")
    assert not archive.put_object_once("jobs/j.json", b"second")
    assert archive.object("plans/p.json") == b"22"
    assert archive.object("jobs/j.json") == b"first"
    assert archive.object("jobs/none.json") is None
    assert archive.objects("plans") == ["p.json"]
    assert archive.objects("none") == []
    for name in ("", "../x", "a//b", "/a"):
        with pytest.raises(InvalidRecord):
            archive.put_object(name, b"")


# --- errors and the floor


def test_error_texts_lose_colours_and_native_stacks() -> None:
    raw = "Kernel error: Json error: \x1b[31mTruncated\x1b[0m record\n   0: <unknown>\n  12: clone3\n      at ./x.c:4\n"
    assert plain(OSError(raw)) == "Json error: Truncated record"


@pytest.mark.parametrize("name", [name for name, kind in vars(errors).items() if isinstance(kind, type)])
def test_every_error_survives_pickling_and_says_two_sentences(name: str) -> None:
    kind = getattr(errors, name)
    if kind.__module__ != errors.__name__:
        return
    values = {"mine": 1, "seen": 2}
    arguments = (
        kind.__init__.__code__.co_varnames[1 : kind.__init__.__code__.co_argcount]
        if "__init__" in vars(kind)
        else ()
    )
    error = kind(*(values.get(argument, f"some {argument}") for argument in arguments))
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, RecbatchError)
    assert str(again) == str(error)
    assert str(error).count(". ") >= 1
    assert str(error).endswith(".")


def test_codes_are_unique() -> None:
    codes = [
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    assert len(codes) == len(set(codes))


def test_all_names_that_are_promised_exist() -> None:
    assert all(hasattr(recbatch.archive, name) for name in recbatch.archive.__all__)


def test_the_floor_loads_neither_torch_nor_ray_nor_other_floors() -> None:
    code = "import sys, recbatch.archive; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    above = {
        "torch",
        "ray",
        "numba",
        "PIL",
        "recbatch.codec",
        "recbatch.rec",
        "recbatch.models",
        "recbatch.engine",
    }
    assert not above & set(modules)
