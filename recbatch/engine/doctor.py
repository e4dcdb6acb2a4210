"""Checks of Ray and of what lies at a URL, for ``recbatch doctor``."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from recbatch.engine import head
from recbatch.engine.source import Tally, find_items
from recbatch.errors import RecbatchError
from recbatch.health import Check, of_error, ok, problem, warning

if TYPE_CHECKING:
    from recbatch.archive import Archive

TOKEN_FILE = Path(".ray") / "auth_token"
LOOK_AT_FILES = 20_000  # an archive of more is not searched for files without a commit: that lists them all
LONG_AGO = timedelta(days=90)


def ray_here(environment: Mapping[str, str]) -> Iterator[Check]:
    """Ray's version, and its settings in the environment. Ray is neither imported nor started."""
    try:
        yield ok("ray", metadata.version("ray"))
    except metadata.PackageNotFoundError:
        yield problem(
            "ray", "not installed", "Run 'pip install \"ray[default]\"', or use --executor processes."
        )
    yield from _address(environment)
    mode = environment.get("RAY_AUTH_MODE", "token").lower()
    if mode != "token":
        text = f"RAY_AUTH_MODE is '{mode}': whoever reaches a Ray of yours can run code there"
        yield warning("ray", text, "Unset it, or set it to 'token'.")
        return
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        yield ok("ray", "token from RAY_AUTH_TOKEN")
        return
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / TOKEN_FILE
    try:
        state = path.stat()
        path.read_bytes()
    except FileNotFoundError:
        if named:
            yield problem(
                "ray", f"RAY_AUTH_TOKEN_PATH names {path}, which is not there", "Name the file, or unset it."
            )
        else:
            yield ok("ray", f"no token yet; a local Ray makes one in {path}")
    except OSError as error:
        yield problem("ray", f"the token in {path} can't be read: {error.strerror}", "Check its permissions.")
    else:
        if stat.S_IMODE(state.st_mode) & 0o077:
            yield warning("ray", f"others can read the token in {path}", f"Run 'chmod 600 {path}'.")
        else:
            yield ok("ray", f"token from {path}")


def _address(environment: Mapping[str, str]) -> Iterator[Check]:
    address = environment.get("RAY_ADDRESS")
    if not address:
        return
    if address.startswith(("http://", "https://")):
        text = f"RAY_ADDRESS is {address}, the address of a job server, which no job can connect to"
        yield warning("ray", text, "Unset it, and name it in RAY_API_SERVER_ADDRESS or by --address.")
    else:
        text = f"RAY_ADDRESS is {address}: 'recbatch compress' runs on that cluster, not here"
        yield warning("ray", text, "Unset it where that is not meant.")
    if environment.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0":
        text = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is 0, which binds Ray to 127.0.0.1"
        yield warning("ray", text, "Unset it on the machines of a cluster.")


def cluster(address: str) -> Iterator[Check]:
    """The job server at an address: reached, its token, its versions, what it has."""
    try:
        address = head.address_of(address, {})
        token, place = head.find_token(os.environ)
        versions = head.check(address, token, place, allow_version_skew=False)
    except RecbatchError as error:
        yield of_error(address.rpartition("@")[2], error)  # what stands before it may be a secret
        return
    accepted = f"token from {place}" if token else "no token asked for"
    yield ok(address, f"Ray {versions.ray}, Python {versions.python or 'not told'}; {accepted}")
    if not token:
        text = "whoever reaches this address can run code there"
        yield warning(address, text, "Start the cluster with RAY_AUTH_MODE=token.")
    there = head.resources(address, token)
    if there:
        names = ("CPU", "GPU")
        yield ok(
            address,
            "has " + (", ".join(f"{there[n]:g} {n}s" for n in names if there.get(n)) or "no free places"),
        )


def contents(url: str) -> Iterator[Check]:
    """What lies at a URL that can be reached: an archive, or images, or nothing yet."""
    from recbatch.archive import Archive, ArchiveNotFound, NotAnArchive
    from recbatch.archive.errors import InvalidLocation

    try:
        archive = Archive.open(url)
    except (ArchiveNotFound, NotAnArchive, InvalidLocation):
        yield from _source(url)
        return
    except RecbatchError as error:
        yield of_error(url, error)
        return
    yield from _archive(url, archive)


def _source(url: str) -> Iterator[Check]:
    from recbatch.engine.errors import SourceEmpty, SourceNotFound

    tally = Tally()
    try:
        first = next(iter(find_items(url, tally=tally)))
    except (SourceEmpty, SourceNotFound):
        yield ok(url, "no archive and no images there yet")
    except RecbatchError as error:
        yield of_error(url, error)
    else:
        yield ok(url, f"no archive, but images, such as {first.key}: a source")


def _archive(url: str, archive: Archive) -> Iterator[Check]:
    files = archive.files()
    rows = sum(file.rows for file in files)
    size = sum(file.size for file in files)
    form = archive.properties.get("recbatch.format", "")
    yield ok(url, f"an archive, format {form}, version {archive.version}: {rows:,} rows, {size / 1e9:.3g} GB")
    yield from _pending(url, archive, len(files))
    yield _verified(url, archive)
    yield from _leases(url, archive)


def _pending(url: str, archive: Archive, files: int) -> Iterator[Check]:
    """Data files that no version names, or only old ones."""
    from recbatch.archive import vacuum

    if files > LOOK_AT_FILES:
        return
    idle = vacuum(archive, dry_run=True)
    if idle:
        text = f"{len(idle):,} data files are old and not of this version"
        yield warning(url, text, f"Run 'recbatch vacuum {url}' to see what would go.")
    else:
        yield ok(url, "no old files that no version needs")


def _verified(url: str, archive: Archive) -> Check:
    from recbatch.archive.rotation import checks

    last = next(iter(itertools.islice(checks(archive), 1)), None)
    remedy = f"Run 'recbatch verify {url}'."
    if last is None:
        return warning(url, "never verified", remedy)
    what = f"{last.finished[:10]} at level {last.level}, {last.rows_checked:,} of {last.rows:,} rows"
    if last.findings:
        return problem(url, f"verified {what}: {last.findings:,} findings", f"{remedy[:-1]} to see them.")
    finished = datetime.fromisoformat(last.finished)
    if datetime.now(UTC) - finished > LONG_AGO:
        return warning(url, f"verified last {what}", remedy)
    return ok(url, f"verified {what}, all well")


def _leases(url: str, archive: Archive) -> Iterator[Check]:
    from recbatch.archive.conditional import read_tagged
    from recbatch.engine.lease import Holder

    for name in archive.objects("leases"):
        found = read_tagged(archive.store, f"_recbatch/leases/{name}")
        if found is None:
            continue
        holder = Holder.from_json(found.data)
        if holder.owner and found.age_s <= holder.duration_s:
            yield ok(url, f"lease {name.removesuffix('.json')} is held by {holder.owner}")
