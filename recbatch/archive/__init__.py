"""Archives: a Delta Lake table with one row per image, and the weights that decode it beside it.

This floor writes data files, commits them exactly once, reads rows back, verifies and sweeps. A stream is
bytes to it. It never codes or decodes an image, never starts a process, and never talks to Ray; pixels are
verified by a decoder that the caller hands over.

A caller needs ``Archive`` (open, read, write_file, commit), ``Record`` (one row) and ``verify``.
"""

from recbatch.archive.archive import Archive, Known
from recbatch.archive.commit import CommitResult, Patience
from recbatch.archive.errors import (
    ArchiveNotFound,
    ArchiveNotReadable,
    ArchiveNotWritable,
    ArchiveTooNew,
    BucketNotFound,
    CommitConflict,
    CorruptArchive,
    DecoderNeeded,
    DuplicateKey,
    InvalidFilter,
    InvalidLocation,
    InvalidRecord,
    KeyNotFound,
    LostDataFile,
    MissingModel,
    NotAnArchive,
    StoreFull,
    StoreUnreachable,
    Superseded,
    TornLog,
    UnsafeGrace,
    VersionGone,
)
from recbatch.archive.maintenance import Sweep, Version, sweep, vacuum, versions
from recbatch.archive.schema import (
    COLUMNS,
    FORMAT,
    HEAVY_COLUMNS,
    LATER_COLUMNS,
    LIGHT_COLUMNS,
    TABLE,
    DataFile,
    Record,
)
from recbatch.archive.stats import Stats, Totals
from recbatch.archive.verify import Checked, Finding, VerifyReport, verify

__all__ = [
    "COLUMNS",
    "FORMAT",
    "HEAVY_COLUMNS",
    "LATER_COLUMNS",
    "LIGHT_COLUMNS",
    "TABLE",
    "Archive",
    "ArchiveNotFound",
    "ArchiveNotReadable",
    "ArchiveNotWritable",
    "ArchiveTooNew",
    "BucketNotFound",
    "Checked",
    "CommitConflict",
    "CommitResult",
    "CorruptArchive",
    "DataFile",
    "DecoderNeeded",
    "DuplicateKey",
    "Finding",
    "InvalidFilter",
    "InvalidLocation",
    "InvalidRecord",
    "KeyNotFound",
    "Known",
    "LostDataFile",
    "MissingModel",
    "NotAnArchive",
    "Patience",
    "Record",
    "Stats",
    "StoreFull",
    "StoreUnreachable",
    "Superseded",
    "Sweep",
    "TornLog",
    "Totals",
    "UnsafeGrace",
    "VerifyReport",
    "Version",
    "VersionGone",
    "sweep",
    "vacuum",
    "verify",
    "versions",
]
