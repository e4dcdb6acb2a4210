"""What can go wrong with an archive.

StoreError     ArchiveNotFound, NotAnArchive, ArchiveTooNew, ArchiveNotReadable, ArchiveNotWritable,
                   BucketNotFound,
               StoreFull, StoreUnreachable*, CommitConflict*, LostDataFile*, Superseded
UsageError     KeyNotFound, DuplicateKey, InvalidRecord, InvalidFilter, InvalidLocation, DecoderNeeded, UnsafeGrace,
               VersionGone
CorruptData    CorruptArchive, TornLog, MissingModel

* retryable
"""

from __future__ import annotations

import shlex

from recbatch.errors import CorruptData, StoreError, UsageError


class ArchiveNotFound(StoreError):
    """Nothing stands at the address of an archive."""

    code = "archive-not-found"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return f"There is no archive at {self.url}. Check the path, or make one with 'recbatch compress'."


class BucketNotFound(StoreError):
    """The bucket itself does not exist."""

    code = "bucket-not-found"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return f"The bucket of {self.url} does not exist. Check its name and the region, or make it first."


class NotAnArchive(StoreError):
    """Something else than an archive stands at the address."""

    code = "not-an-archive"

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return (
            f"{self.url} is not a recbatch archive: {self.problem}. "
            "Name an archive, or an empty place for a new one."
        )


class ArchiveTooNew(StoreError):
    """The archive was written by a later recbatch, or by a later Delta writer."""

    code = "archive-too-new"

    def __init__(self, url: str, found: str, supported: str) -> None:
        super().__init__(url, found, supported)
        self.url, self.found, self.supported = url, found, supported

    def __str__(self) -> str:
        return (
            f"{self.url} needs {self.found}, this recbatch reads {self.supported}. Install a newer recbatch."
        )


class ArchiveNotReadable(StoreError):
    """The store refuses to let the archive be read."""

    code = "archive-not-readable"

    def __init__(self, url: str, problem: str, remedy: str = "") -> None:
        super().__init__(url, problem, remedy)
        self.url, self.problem, self.remedy = url, problem, remedy

    def __str__(self) -> str:
        remedy = self.remedy or "Check its permissions, or your credentials"
        return f"Reading {self.url} is not allowed: {self.problem}. {remedy}."


class ArchiveNotWritable(StoreError):
    """The store refuses to let the archive be written."""

    code = "archive-not-writable"

    def __init__(self, url: str, problem: str, remedy: str = "") -> None:
        super().__init__(url, problem, remedy)
        self.url, self.problem, self.remedy = url, problem, remedy

    def __str__(self) -> str:
        remedy = self.remedy or "Check its permissions, or your credentials"
        return f"Writing to {self.url} is not allowed: {self.problem}. {remedy}."


class StoreFull(StoreError):
    """No room is left where the archive lies."""

    code = "store-full"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return (
            f"No room is left at {self.url}; the archive stands as it was after its last commit. "
            "Free some space and run the same command again: it goes on from there."
        )


class StoreUnreachable(StoreError):
    """The store does not answer, or answers with an error that may pass."""

    code = "store-unreachable"
    retryable = True

    def __init__(self, url: str, problem: str, remedy: str = "") -> None:
        super().__init__(url, problem, remedy)
        self.url, self.problem, self.remedy = url, problem, remedy

    def __str__(self) -> str:
        remedy = self.remedy or "Check the connection and run the command again"
        return f"The store of {self.url} failed: {self.problem}. {remedy}."


class CommitConflict(StoreError):
    """Others kept committing to the archive for as long as we tried to."""

    code = "commit-conflict"
    retryable = True

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return (
            f"Other writers keep committing to {self.url} ({self.problem}). "
            "Stop them, or run the command again later."
        )


class LostDataFile(StoreError):
    """A data file is gone, or has another size than its writer reported, before its commit."""

    code = "lost-data-file"
    retryable = True

    def __init__(self, shard: str, path: str, problem: str) -> None:
        super().__init__(shard, path, problem)
        self.shard, self.path, self.problem = shard, path, problem

    def __str__(self) -> str:
        return (
            f"Data file {self.path} of shard {self.shard} {self.problem}. The shard has to be written again."
        )


class Superseded(StoreError):
    """A later run of the same job has taken over."""

    code = "superseded"

    def __init__(self, job: str, mine: int, seen: int) -> None:
        super().__init__(job, mine, seen)
        self.job, self.mine, self.seen = job, mine, seen

    def __str__(self) -> str:
        return (
            f"Another run of job {self.job} has taken over (epoch {self.seen}, this one has {self.mine}). "
            "Let that one finish; nothing of this run's commits is lost."
        )


class KeyNotFound(UsageError, KeyError):
    """The archive has no row of this key."""

    code = "key-not-found"

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key)
        self.url, self.key = url, key

    def __str__(self) -> str:
        return f"{self.url} has no image named {self.key!r}. List the names with 'recbatch ls'."


class DuplicateKey(UsageError):
    """Two rows written together have the same key."""

    code = "duplicate-key"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"Key {self.key!r} is written twice at once. Give every image of a run a key of its own."


class InvalidRecord(UsageError):
    """A record contradicts the table's rules."""

    code = "invalid-record"

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem

    def __str__(self) -> str:
        return (
            f"The record of {self.key!r} can't be written: {self.problem}. See the table in docs/archive.md."
        )


class InvalidFilter(UsageError):
    """A --where expression is not one."""

    code = "invalid-filter"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where, self.problem = where, problem

    def __str__(self) -> str:
        stop = "" if self.problem.endswith("?") else "."
        return (
            f"The filter {self.where!r} can't be used: {self.problem}{stop} "
            "Write an SQL condition over the archive's columns, such as \"width > 1000 and codec = 'lossy'\"."
        )


class InvalidLocation(UsageError):
    """An address that no archive can have."""

    code = "invalid-location"

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return (
            f"No archive can lie at {self.url!r}: {self.problem}. Choose another path, or an s3:// address."
        )


class DecoderNeeded(UsageError):
    """Verification of pixels was asked for without anything that decodes."""

    code = "decoder-needed"

    def __str__(self) -> str:
        return "Verifying pixels needs a decoder. Hand one over as decoder=, or verify at level 'digests'."


class UnsafeGrace(UsageError):
    """A vacuum would sweep files that a running job may still commit."""

    code = "unsafe-grace"

    def __init__(self, grace: str, least: str) -> None:
        super().__init__(grace, least)
        self.grace, self.least = grace, least

    def __str__(self) -> str:
        return (
            f"A grace period of {self.grace} is shorter than {self.least}: files of a running job could go. "
            "Choose a longer one, or give --force when no job runs."
        )


class VersionGone(UsageError):
    """An earlier version of an archive can't be read any more, because a vacuum took what it needs."""

    code = "version-gone"

    def __init__(self, url: str, version: int) -> None:
        super().__init__(url, version)
        self.url, self.version = url, version

    def __str__(self) -> str:
        return (
            f"Version {self.version} of {self.url} is gone: a vacuum removed files that it needs. "
            f"'recbatch versions {shlex.quote(self.url)}' shows which versions can still be read."
        )


class CorruptArchive(CorruptData):
    """An archive's files contradict one another, or can't be read."""

    code = "corrupt-archive"

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(url, problem)
        self.url, self.problem = url, problem

    def __str__(self) -> str:
        return f"{self.url} is damaged: {self.problem}. Run 'recbatch verify' to see what is hit."


class TornLog(CorruptArchive):
    """A log entry ends in the middle, as after a power cut on a disk that lies about writing."""

    code = "torn-log"

    def __init__(self, url: str, entry: str) -> None:
        super().__init__(url, entry)
        self.entry = entry

    def __str__(self) -> str:
        return (
            f"{self.url} can't be opened: its log entry {self.entry} is not whole. If it is the newest entry, "
            "move it away; the archive then stands as before that commit, and 'recbatch compress' does it again."
        )


class MissingModel(CorruptData):
    """The weights that a stream needs don't lie in the archive."""

    code = "missing-model"

    def __init__(self, url: str, digest: str) -> None:
        super().__init__(url, digest)
        self.url, self.digest = url, digest

    def __str__(self) -> str:
        return (
            f"{self.url} holds no weights whose digest begins with {self.digest}. "
            "Copy them into _recbatch/models/ from another copy of the archive."
        )
