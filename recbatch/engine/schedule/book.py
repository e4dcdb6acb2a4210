"""What an archive knows of its schedules: ``_recbatch/schedules/``, ``_recbatch/ticks/`` and ``_recbatch/leases/``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from recbatch.archive.conditional import Tagged, put_if, read_tagged
from recbatch.archive.store import LEDGER, Store
from recbatch.engine.lease import Holder, Lease, Objects
from recbatch.engine.schedule.errors import ScheduleExists, UnconditionalStore, UnknownSchedule
from recbatch.engine.schedule.spec import Schedule, Tick, tick_name

KEPT = 200  # ticks on record of each schedule
_SUFFIX = ".json"
_LOOKED_BACK = 20  # ticks that were not run, between a newer one and the last run


class Drawer(Objects, Protocol):
    """Conditional objects that can be listed and removed as well."""

    def names(self, folder: str) -> Sequence[str]: ...

    def delete(self, name: str) -> None: ...


class StoreDrawer:
    """The ledger of an archive, wherever it lies."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, name: str) -> Tagged | None:
        return read_tagged(self._store, f"{LEDGER}/{name}")

    def put_if(self, name: str, data: bytes, *, etag: str | None) -> str | None:
        return put_if(self._store, f"{LEDGER}/{name}", data, etag=etag)

    def names(self, folder: str) -> Sequence[str]:
        return self._store.names(f"{LEDGER}/{folder}")

    def delete(self, name: str) -> None:
        self._store.delete(f"{LEDGER}/{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A tick on record, with the tag that a change of it has to name."""

    tick: Tick
    etag: str


class Book:
    """The schedules of one archive and their ticks."""

    def __init__(self, drawer: Drawer, archive: str) -> None:
        self._drawer, self.archive = drawer, archive

    @classmethod
    def open(cls, archive: str) -> Book:
        """Raises ArchiveNotFound, NotAnArchive, and the rest of what ``Archive.open`` does."""
        from recbatch.archive import Archive

        found = Archive.open(archive)
        return cls(StoreDrawer(found.store), found.url)

    @classmethod
    def open_or_create(cls, archive: str) -> Book:
        from recbatch.archive import Archive

        found = Archive.create(archive, exist_ok=True)
        return cls(StoreDrawer(found.store), found.url)

    # --- schedules

    def located(self, schedule: Schedule) -> Schedule:
        """The schedule with the archive's whole address, which holds from any folder."""
        return replace(schedule, archive=self.archive)

    def add(self, schedule: Schedule) -> None:
        """Raises BadSchedule, ScheduleExists, UnconditionalStore."""
        schedule.check()
        name = _schedule_name(schedule.name)
        if self._drawer.put_if(name, schedule.to_json(), etag=None) is None:
            raise ScheduleExists(schedule.name, self.archive)
        if self._drawer.put_if(name, schedule.to_json() + b"\n", etag=None) is not None:
            self._drawer.delete(name)
            raise UnconditionalStore(self.archive)

    def schedules(self) -> list[Schedule]:
        """Raises DamagedSchedule."""
        return [self.schedule(name) for name in self.names()]

    def names(self) -> list[str]:
        return self._listed("schedules")

    def schedule(self, name: str) -> Schedule:
        """Raises UnknownSchedule, DamagedSchedule."""
        return self.schedule_at(name)[0]

    def schedule_at(self, name: str) -> tuple[Schedule, datetime | None]:
        """A schedule, and what time it is by the store, where the store has a clock of its own."""
        if "/" in name or (found := self._drawer.read(_schedule_name(name))) is None:
            raise UnknownSchedule(name, self.archive)
        return Schedule.from_json(_schedule_name(name), found.data), found.now

    def remove(self, name: str) -> None:
        """Its ticks stay on record. Raises UnknownSchedule."""
        if "/" in name or self._drawer.read(_schedule_name(name)) is None:
            raise UnknownSchedule(name, self.archive)
        self._drawer.delete(_schedule_name(name))

    # --- ticks

    def entries(self, schedule: str, count: int) -> list[Entry]:
        """The last ticks on record, the newest first."""
        found = []
        for name in reversed(self._listed(f"ticks/{schedule}")[-count:]):
            path = f"ticks/{schedule}/{name}{_SUFFIX}"
            if (item := self._drawer.read(path)) is not None:
                found.append(Entry(tick=Tick.from_json(path, item.data), etag=item.etag))
        return found

    def recent(self, schedule: str) -> tuple[Tick | None, Entry | None]:
        """The newest tick on record, and the newest that was run or is being run."""
        newest = self.entries(schedule, 1)
        if not newest or newest[0].tick.state != "skipped":
            return (newest[0].tick, newest[0]) if newest else (None, None)
        earlier = self.entries(schedule, _LOOKED_BACK)
        run = next((entry for entry in earlier if entry.tick.state != "skipped"), None)
        return newest[0].tick, run

    def claim(self, tick: Tick, *, etag: str | None = None) -> Entry | None:
        """Put a tick on record, or change one that is: None where somebody else did."""
        made = self._drawer.put_if(self._path(tick.schedule, tick.tick), tick.to_json(), etag=etag)
        return None if made is None else Entry(tick=tick, etag=made)

    def prune(self, schedule: str) -> None:
        """Forget all but the last ticks. None of those comes again: a tick older than the newest is never run."""
        for name in self._listed(f"ticks/{schedule}")[:-KEPT]:
            self._drawer.delete(f"ticks/{schedule}/{name}{_SUFFIX}")

    # --- leases

    def lease(self, schedule: Schedule, *, owner: str, purpose: str = "") -> Lease:
        return Lease(self._drawer, schedule.lease, owner=owner, purpose=purpose)

    def holder(self, schedule: Schedule) -> Holder | None:
        """Who runs what excludes this schedule, now."""
        return self.lease(schedule, owner="").look()

    def _path(self, schedule: str, tick: datetime) -> str:
        return f"ticks/{schedule}/{tick_name(tick)}{_SUFFIX}"

    def _listed(self, folder: str) -> list[str]:
        return sorted(
            name.removesuffix(_SUFFIX) for name in self._drawer.names(folder) if name.endswith(_SUFFIX)
        )


def _schedule_name(name: str) -> str:
    return f"schedules/{name}{_SUFFIX}"
