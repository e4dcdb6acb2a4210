from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archive_helpers import HASTY, image
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from recbatch.archive import (
    Archive,
    ArchiveNotWritable,
    CommitConflict,
    DataFile,
    DuplicateKey,
    LostDataFile,
    Patience,
    Record,
    StoreFull,
    StoreUnreachable,
    Superseded,
    verify,
)


def streams(archive: Archive) -> dict[str, bytes | None]:
    """All rows; fails where a key stands twice."""
    rows = [(record.key, record.stream) for record in archive.records()]
    assert len(rows) == len(dict(rows)) == len(archive)
    return dict(rows)


def expected(*records: Record) -> dict[str, bytes | None]:
    return {record.key: record.stream for record in records}


@pytest.fixture
def epoch(archive: Archive) -> int:
    return archive.claim_epoch("job")


@pytest.fixture
def two(archive: Archive) -> list[tuple[str, DataFile]]:
    return [
        ("p/0", archive.write_file([image("a"), image("b")], stem="s")),
        ("p/1", archive.write_file([image("c")], stem="s")),
    ]


def test_rows_are_visible_after_their_commit_and_not_before(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]]
) -> None:
    assert streams(Archive.open(archive.url)) == {}
    result = archive.commit(two, job="job", epoch=epoch)
    assert (result.committed, result.already, result.rows) == (("p/0", "p/1"), (), 3)
    assert result.version == archive.version == Archive.open(archive.url).version
    assert streams(archive) == expected(image("a"), image("b"), image("c"))


def test_a_commit_repeated_changes_nothing(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]]
) -> None:
    version = archive.commit(two, job="job", epoch=epoch).version
    again = archive.commit(two, job="job", epoch=epoch)
    assert (again.committed, again.already, again.version) == ((), ("p/0", "p/1"), version)
    assert Archive.open(archive.url).version == version


def test_a_shard_that_stands_is_left_out_and_the_others_go_in(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]]
) -> None:
    archive.commit(two[:1], job="job", epoch=epoch)
    redone = archive.write_file([image("a", state="redone"), image("b")], stem="s")
    result = archive.commit([("p/0", redone), two[1]], job="job", epoch=epoch)
    assert (result.committed, result.already) == (("p/1",), ("p/0",))
    assert streams(archive) == expected(image("a"), image("b"), image("c"))


def test_epochs_grow_by_one_and_each_job_has_its_own(archive: Archive) -> None:
    assert [archive.claim_epoch(job) for job in ("x", "x", "y", "x")] == [1, 2, 1, 3]


def test_an_earlier_epoch_is_refused_once_a_later_one_is_claimed(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]]
) -> None:
    Archive.open(archive.url).claim_epoch("job")
    with pytest.raises(Superseded) as raised:
        archive.commit(two, job="job", epoch=epoch)
    assert (raised.value.mine, raised.value.seen, raised.value.exit_status) == (1, 2, 3)
    assert streams(Archive.open(archive.url)) == {}


def test_an_epoch_claimed_in_the_middle_of_a_commit_fences_it_out(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = Archive.open(archive.url)
    inject(monkeypatch, before={1: lambda: rival.claim_epoch("job")})
    with pytest.raises(Superseded):
        archive.commit(two, job="job", epoch=epoch, patience=HASTY)
    assert streams(Archive.open(archive.url)) == {}


def test_a_missing_or_changed_file_is_not_committed(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]]
) -> None:
    path = Path(archive.url, two[1][1].path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(LostDataFile, match="its writer reported") as raised:
        archive.commit(two, job="job", epoch=epoch)
    assert (raised.value.shard, raised.value.retryable) == ("p/1", True)
    path.unlink()
    with pytest.raises(LostDataFile, match="is gone"):
        archive.commit(two, job="job", epoch=epoch)
    assert streams(Archive.open(archive.url)) == {}


def test_two_new_files_with_the_same_key_are_refused(archive: Archive, epoch: int) -> None:
    left = archive.write_file([image("a"), image("m")], stem="s")
    right = archive.write_file([image("b"), image("m")], stem="s")
    with pytest.raises(DuplicateKey, match="'m'"):
        archive.commit([("0", left), ("1", right)], job="job", epoch=epoch)


def test_a_shard_may_have_several_files(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]]
) -> None:
    result = archive.commit([("p/0", file) for _, file in two], job="job", epoch=epoch)
    assert (result.committed, result.rows) == (("p/0",), 3)
    assert len(streams(archive)) == 3


# --- replacing


def test_new_rows_replace_those_of_the_same_keys_in_one_version(archive: Archive, epoch: int) -> None:
    old = [image(name) for name in "abcdefgh"]
    archive.commit(
        [("0", archive.write_file(old[:4], stem="s")), ("1", archive.write_file(old[4:], stem="s"))],
        job="job",
        epoch=epoch,
    )
    before = archive.version
    changed = [image("b", state="new"), image("g", state="new"), image("x")]
    result = archive.commit([("2", archive.write_file(changed, stem="s"))], job="job", epoch=epoch)
    assert (result.replaced, result.rewritten, result.version) == (2, 2, before + 1)
    assert streams(archive) == {**expected(*old), **expected(*changed)}
    assert streams(Archive.open(archive.url, version=before)) == expected(*old)
    assert verify(archive).ok


def test_a_file_whose_rows_all_give_way_is_dropped_without_a_successor(archive: Archive, epoch: int) -> None:
    archive.commit([("0", archive.write_file([image("a"), image("b")], stem="s"))], job="job", epoch=epoch)
    new = archive.write_file([image("a", state="new"), image("b", state="new")], stem="s")
    result = archive.commit([("1", new)], job="job", epoch=epoch)
    assert (result.replaced, result.rewritten) == (2, 0)
    assert [file.path for file in archive.files()] == [new.path]


def test_files_without_replaced_keys_are_left_alone(archive: Archive, epoch: int) -> None:
    kept = archive.write_file(
        [image("a"), image("z")], stem="s"
    )  # its range holds the new key, its rows do not
    archive.commit([("0", kept)], job="job", epoch=epoch)
    result = archive.commit([("1", archive.write_file([image("m")], stem="s"))], job="job", epoch=epoch)
    assert (result.replaced, result.rewritten) == (0, 0)
    assert kept.path in [file.path for file in archive.files()]


def test_a_rewritten_file_keeps_its_other_rows_and_its_layout(archive: Archive, epoch: int) -> None:
    old = [image(f"{number:03}", 60_000) for number in range(120)]
    archive.commit([("0", archive.write_file(old, stem="s"))], job="job", epoch=epoch)
    gone = {record.key for record in old[5:90]}
    new = [image(key, 10, state="new") for key in gone]
    archive.commit([("1", archive.write_file(new, stem="s"))], job="job", epoch=epoch)
    assert streams(archive) == {**expected(*old), **expected(*new)}
    assert verify(archive).ok


def test_another_jobs_row_of_the_same_key_is_replaced_too(archive: Archive) -> None:
    for job, state in (("x", "first"), ("y", "second")):
        file = archive.write_file([image("a", state=state)], stem="s")
        archive.commit([(f"{job}/0", file)], job=job, epoch=archive.claim_epoch(job))
    assert streams(archive) == expected(image("a", state="second"))


def test_a_rival_with_the_same_key_in_between_does_not_make_it_stand_twice(
    archive: Archive, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = Archive.open(archive.url)
    their_epoch = rival.claim_epoch("other")
    theirs = rival.write_file([image("a", state="theirs")], stem="t")
    ours = archive.write_file([image("a", state="ours")], stem="s")
    inject(monkeypatch, before={1: lambda: rival.commit([("t", theirs)], job="other", epoch=their_epoch)})
    result = archive.commit([("s", ours)], job="job", epoch=epoch, patience=HASTY)
    assert (result.turns, result.replaced) == (2, 1)
    assert streams(archive) == expected(image("a", state="ours"))


# --- faults


def inject(
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: dict[int, Callable[[], Any]] | None = None,
    after: dict[int, Callable[[], Any]] | None = None,
) -> list[int]:
    """Run something right before or right after the n-th commit to the log, counted from 1."""
    real = DeltaTable.create_write_transaction
    calls: list[int] = []

    def wrapped(self: DeltaTable, *args: Any, **options: Any) -> None:
        calls.append(len(calls) + 1)
        turn = calls[-1]
        (before or {}).get(turn, lambda: None)()
        real(self, *args, **options)
        (after or {}).get(turn, lambda: None)()

    monkeypatch.setattr(DeltaTable, "create_write_transaction", wrapped)
    return calls


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [CommitFailedError("rival"), OSError("503 slow down"), TimeoutError("timed out")]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_around_the_commit_is_overcome_and_a_lost_answer_is_found(
    archive: Archive,
    epoch: int,
    two: list[tuple[str, DataFile]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    when: str,
) -> None:
    calls = inject(monkeypatch, **{when: {1: failing(error)}})
    result = archive.commit(two, job="job", epoch=epoch, patience=HASTY)
    assert result.committed == ("p/0", "p/1")
    assert result.rows == 3
    assert len(calls) == (2 if when == "before" else 1)
    assert streams(archive) == expected(image("a"), image("b"), image("c"))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_driver_killed_around_its_commit_can_do_it_again(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    archive.commit([("o", archive.write_file([image("b", state="old")], stem="o"))], job="job", epoch=epoch)
    with monkeypatch.context() as patched:
        inject(patched, **{when: {1: failing(KeyboardInterrupt())}})
        with pytest.raises(KeyboardInterrupt):
            archive.commit(two, job="job", epoch=epoch, patience=HASTY)
    after = streams(Archive.open(archive.url))
    whole = expected(image("a"), image("b"), image("c"))
    assert after == (whole if when == "after" else expected(image("b", state="old")))
    successor = Archive.open(archive.url)
    successor.commit(two, job="job", epoch=successor.claim_epoch("job"))
    assert streams(successor) == whole
    assert verify(successor).ok


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("Generic LocalFileSystem error: No space left on device (os error 28)"), StoreFull),
        (PermissionError("Permission denied"), ArchiveNotWritable),
        (OSError("client lacked the necessary privileges"), ArchiveNotWritable),
    ],
)
def test_a_fault_that_will_not_pass_ends_the_commit_at_once(
    archive: Archive,
    epoch: int,
    two: list[tuple[str, DataFile]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
) -> None:
    calls = inject(monkeypatch, before={turn: failing(error) for turn in range(1, 9)})
    with pytest.raises(kind):
        archive.commit(two, job="job", epoch=epoch, patience=HASTY)
    assert calls == [1]
    assert streams(Archive.open(archive.url)) == {}


@pytest.mark.parametrize(
    ("error", "kind"),
    [(CommitFailedError("rival"), CommitConflict), (OSError("reset by peer"), StoreUnreachable)],
)
def test_patience_ends_with_an_error_that_may_be_retried(
    archive: Archive,
    epoch: int,
    two: list[tuple[str, DataFile]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
) -> None:
    inject(monkeypatch, before={turn: failing(error) for turn in range(1, 9)})
    waits: list[float] = []
    with pytest.raises(kind) as raised:
        archive.commit(two, job="job", epoch=epoch, patience=Patience(turns=5, sleep=waits.append))
    assert raised.value.retryable
    assert len(waits) == 4
    assert max(waits) <= Patience().longest_wait_s


def test_a_programming_error_is_not_taken_for_the_stores(
    archive: Archive, epoch: int, two: list[tuple[str, DataFile]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, before={1: failing(AttributeError("typo"))})
    with pytest.raises(AttributeError, match="typo"):
        archive.commit(two, job="job", epoch=epoch, patience=HASTY)


shards = st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=6)
faults = st.dictionaries(st.integers(1, 8), st.sampled_from(["before", "after"]), max_size=4)


@settings(deadline=None, max_examples=15)
@given(shards=shards, faults=faults)
def test_whatever_fails_the_archive_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, shards: list[set[str]], faults: dict[int, str]
) -> None:
    archive = Archive.create(tmp_path_factory.mktemp("model") / "a.rec")
    epoch = archive.claim_epoch("job")
    model: dict[str, bytes | None] = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        inject(
            monkeypatch,
            before={turn: failing(OSError("lost")) for turn, when in faults.items() if when == "before"},
            after={turn: failing(OSError("lost")) for turn, when in faults.items() if when == "after"},
        )
        for number, keys in enumerate(shards):
            rows = [image(key, state=str(number)) for key in sorted(keys)]
            file = archive.write_file(rows, stem="s")
            archive.commit([(f"p/{number}", file)], job="job", epoch=epoch, patience=HASTY)
            model |= expected(*rows)
            assert streams(archive) == model
    assert verify(archive).ok


# --- a real race

SHARDS = 20


def racer(url: str, epoch: int, number: int, gate: Any, results: Any) -> None:
    archive = Archive.open(url)
    files = [
        archive.write_file(
            [image(f"{shard:02}/{place}", state=str(number)) for place in range(2)], stem=f"r{number}"
        )
        for shard in range(SHARDS)
    ]
    gate.wait()
    won = []
    for shard, file in enumerate(files):
        result = archive.commit([(f"plan/{shard}", file)], job="job", epoch=epoch)
        assert result.committed or result.already
        won += [int(name.partition("/")[2]) for name in result.committed]
    results.put((number, won))


@pytest.mark.chaos
def test_three_processes_that_race_for_the_same_shards_commit_each_exactly_once(
    archive: Archive, epoch: int
) -> None:
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(3), context.Queue()
    racers = [
        context.Process(target=racer, args=(archive.url, epoch, number, gate, results)) for number in range(3)
    ]
    for process in racers:
        process.start()
    winners = dict(results.get(timeout=240) for _ in racers)
    for process in racers:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(shard for won in winners.values() for shard in won) == list(range(SHARDS))
    archive.refresh()
    who = {shard: number for number, won in winners.items() for shard in won}
    assert streams(archive) == {
        key: image(key, state=str(who[shard])).stream
        for shard in range(SHARDS)
        for key in (f"{shard:02}/0", f"{shard:02}/1")
    }
    assert len(os.listdir(archive.url)) > SHARDS  # the losers' files lie there, and nothing names them
