"""What can go wrong between a source and its archive.

StoreError                 exit 3
+-- SourceNotFound         there is no such folder, file or prefix
+-- SourceEmpty            it holds no image
+-- SourceUnreadable       its store refuses or does not answer (retried)
+-- DestinationUnwritable  a restored file can't be written
+-- WorkerSetupFailed      a worker could not load what it needs
+-- WorkersKeepFailing     workers die or fail, and nothing gets done
+-- NotEnoughResources     the cluster has too few GPUs or CPUs
UsageError                 exit 2
+-- BadListing             a listing file has a row or a form that can't be used
ImageError                 one row, quarantined
+-- PoisonImage            kills or hangs the process that encodes it
+-- InternalFailure        the codec raised something it never should
+-- SourceVanished, BrokenLink, NotAFile, UnreadableFile, SourceChanged, FileTooLarge
+-- UnsafeKey, NameTaken, NoOriginal   one image can't be restored as asked
+-- SourceDiffers, GenerationLoss, FileNotHeld   one row can't be coded again as asked, and stays
"""

from __future__ import annotations

from recbatch.errors import ImageError, StoreError, UsageError


class SourceNotFound(StoreError):
    """Nothing stands at the address of a source."""

    code = "source-not-found"

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.source = source

    def __str__(self) -> str:
        return f"There is no source at {self.source}. Check the path or URL."


class SourceBucketNotFound(SourceNotFound):
    """The bucket that a source is to lie in does not exist."""

    code = "source-bucket-not-found"

    def __str__(self) -> str:
        bucket = self.source.partition("://")[2].partition("/")[0]
        return f"There is no bucket named '{bucket}'. Check the name, the region, and AWS_ENDPOINT_URL."


class SourceEmpty(StoreError):
    """A source holds no image."""

    code = "source-empty"

    def __init__(self, source: str, skipped: int = 0) -> None:
        super().__init__(source, skipped)
        self.source, self.skipped = source, skipped

    def __str__(self) -> str:
        if self.skipped:
            return (
                f"{self.source} holds no image: none of its {self.skipped} other files was taken. "
                "Name the files to take with --include, for example --include '*.dat'."
            )
        return f"{self.source} holds no files. Check that it is the right folder."


class SourceUnreadable(StoreError):
    """The store behind the source fails or refuses; nothing is known about the images themselves."""

    code = "source-unreadable"
    retryable = True

    def __init__(self, source: str, problem: str, remedy: str = "") -> None:
        super().__init__(source, problem, remedy)
        self.source, self.problem, self.remedy = source, problem, remedy

    def __str__(self) -> str:
        remedy = self.remedy or "Check address and permissions; run the same command again"
        return f"{self.source} can't be read: {self.problem}. {remedy}."


class BadListing(UsageError):
    """A listing file has a row, or a form, that can't be used."""

    code = "bad-listing"

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}. Mend the listing, or leave it out to list the source itself."


class ListingNotFound(SourceNotFound):
    """Nothing stands at the address of a listing file."""

    code = "listing-not-found"

    def __str__(self) -> str:
        return f"There is no listing at {self.source}. Check the path or URL."


class ListingNamesNothing(UsageError):
    """A listing file names no image of the source."""

    code = "listing-names-nothing"

    def __init__(self, listing: str, problem: str, remedy: str) -> None:
        super().__init__(listing, problem, remedy)
        self.listing, self.problem, self.remedy = listing, problem, remedy

    def __str__(self) -> str:
        return f"{self.listing} {self.problem}. {self.remedy}."


class DestinationUnwritable(StoreError):
    """A restored file can't be written, nor could the next one."""

    code = "destination-unwritable"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path} can't be written: {self.problem}. Check its permissions and the free space."


class WorkerSetupFailed(StoreError):
    """A worker could not load what it needs."""

    code = "worker-setup-failed"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"A worker could not start: {self.problem}. "
            "Check the installation on every machine that runs workers."
        )


class WorkersKeepFailing(StoreError):
    """Workers die or fail one after the other, and nothing gets done."""

    code = "workers-keep-failing"

    def __init__(self, failures: int, last: str) -> None:
        super().__init__(failures, last)
        self.failures, self.last = failures, last

    def __str__(self) -> str:
        return (
            f"Workers failed {self.failures} times in a row, nothing done between; the last: {self.last}. "
            "Try fewer --workers (memory?); what was committed stays, and the same command goes on."
        )


class NotEnoughResources(StoreError):
    """The cluster has too few GPUs for the job."""

    code = "not-enough-resources"

    def __init__(self, wanted: str, present: str) -> None:
        super().__init__(wanted, present)
        self.wanted, self.present = wanted, present

    def __str__(self) -> str:
        return (
            f"The job asks for {self.wanted}, Ray has {self.present}. Ask for less, or use a larger cluster."
        )


class PoisonImage(ImageError):
    """An image kills or hangs the process that encodes it."""

    code = "poison-image"
    remedy = "Look at the file; try again with more memory and --retry-quarantined."

    def __init__(self, key: str, attempts: int, last: str) -> None:
        super().__init__(key, attempts, last)
        self.key, self.attempts, self.last = key, attempts, last

    def __str__(self) -> str:
        return (
            f"{self.key}: encoding it ended its process {self.attempts} times, alone as well ({self.last}). "
            + self.remedy
        )


class InternalFailure(ImageError):
    """The codec raised what it never should; a bug of ours."""

    code = "internal"

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem

    def __str__(self) -> str:
        return (
            f"{self.key}: the codec failed with {self.problem}. This is a bug of recbatch: report the file."
        )


class SourceVanished(ImageError):
    """A file was listed and is gone when it is read."""

    code = "source-vanished"
    problem = "it was listed, and is gone now"
    remedy = "Run the same command again once it is back."

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}. {self.remedy}"


class BrokenLink(ImageError):
    """A symbolic link leads nowhere."""

    code = "broken-link"

    def __init__(self, key: str, target: str) -> None:
        super().__init__(key, target)
        self.key, self.target = key, target

    def __str__(self) -> str:
        return f"{self.key}: the symbolic link leads nowhere ({self.target}). Mend or remove the link."


class NotAFile(ImageError):
    """A pipe, a socket or a device stands where a file is expected."""

    code = "not-a-file"
    remedy = "Exclude it with --exclude."

    def __init__(self, key: str, kind: str) -> None:
        super().__init__(key, kind)
        self.key, self.kind = key, kind

    def __str__(self) -> str:
        return f"{self.key}: it is a {self.kind}, no regular file. {self.remedy}"


class UnreadableFile(ImageError):
    """One file of the source can't be read."""

    code = "unreadable-file"
    remedy = "Check its permissions, then --retry-quarantined."

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem

    def __str__(self) -> str:
        return f"{self.key}: it can't be read: {self.problem}. {self.remedy}"


class SourceChanged(ImageError):
    """A file kept changing while it was read."""

    code = "source-changed"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: it kept changing while it was read. Run the same command again once it rests."


class FileTooLarge(ImageError):
    """A file is larger than a row of the archive may be."""

    code = "file-too-large"

    def __init__(self, key: str, size: int, limit: int) -> None:
        super().__init__(key, size, limit)
        self.key, self.size, self.limit = key, size, limit

    def __str__(self) -> str:
        return (
            f"{self.key}: {self.size} bytes, more than the limit of {self.limit}. Split or exclude the file."
        )


class UnsafeKey(ImageError):
    """A key is no name that a file under the destination may have."""

    code = "unsafe-key"

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem

    def __str__(self) -> str:
        return (
            f"{self.key!r} is no safe file name: {self.problem}. "
            "Fetch it with 'recbatch get' under a name of yours."
        )


class NameTaken(ImageError):
    """Another file stands where an image is to be restored."""

    code = "name-taken"

    def __init__(self, key: str, path: str) -> None:
        super().__init__(key, path)
        self.key, self.path = key, path

    def __str__(self) -> str:
        return f"{self.key}: {self.path} is there already. Restore to another folder, or use --overwrite."


class NoOriginal(ImageError):
    """The archive holds an image's pixels, not its file."""

    code = "no-original"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"{self.key}: the archive holds its pixels, not its file's bytes. Restore it with --format png."
        )


class SourceDiffers(ImageError):
    """A row's source is not the file any more that was archived."""

    code = "source-differs"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"{self.key}: its source is not the file any more that was archived, so its row stays. "
            "Run 'recbatch compress' for what is new, or recompress with --changed take."
        )


class GenerationLoss(ImageError):
    """A lossy row would have to be coded again from its own decoded pixels."""

    code = "generation-loss"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"{self.key}: its row is lossy, and coding its pixels again would lose more, so it stays. "
            "Recompress it from its source, or add --lossy-again."
        )


class FileNotHeld(ImageError):
    """The source's file is wanted from a row that has only its pixels."""

    code = "file-not-held"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"{self.key}: the archive holds its pixels, not its file, so its row stays. "
            "Recompress it from its source, without --from-archive."
        )
