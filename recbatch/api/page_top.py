"""The top of a run's page: what came of it, in a sentence, in two bars and in tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbatch.api.page_charts import bar, significant
from recbatch.api.page_html import Child, Html, tag
from recbatch.api.page_words import count, day, duration, share, size

if TYPE_CHECKING:
    from recbatch.api.page import RunPage


def top(page: RunPage) -> Html:
    status = page.status
    state = status.state_at(page.now)
    over = tag(
        "p",
        tag("span", state, class_=f"badge {state}"),
        tag("span", f"{status.job or 'run'} · {day(status.started)}"),
        tag("span", status.run, class_="mono"),
        class_="over",
    )
    name = tag("span", tag("bdi", status.source, class_="key"), " to ") if status.source else None
    where = tag("span", name, tag("bdi", page.url, class_="key"), class_="from")
    return tag(
        "header",
        over,
        tag("h1", headline(page)),
        lead(page, state),
        where,
        notes(page, state),
        saving(page),
        tiles(page),
    )


def headline(page: RunPage) -> str:
    status = page.status
    if not status.done:
        return "Nothing new was archived" if status.finished else "Nothing is archived yet"
    images = count(status.archived, "image")
    if page.is_recompression:
        images += " coded again"
        return (
            f"{images}, in {share(status.bytes_out, status.bytes_in)} of their size"
            if status.bytes_in
            else images
        )
    if not status.bytes_in:
        return f"{images} archived"
    return f"{images} in {share(status.bytes_out, status.bytes_in)} of their size"


def lead(page: RunPage, state: str) -> Html:
    status = page.status
    parts = []
    if status.bytes_in:
        saved = status.bytes_in - status.bytes_out
        verb = "saved" if saved >= 0 else "more than the sources"
        parts.append(f"{size(abs(saved))} {verb}")
    parts.append(
        f"in {duration(status.seconds)}" if status.finished else f"running for {duration(status.seconds)}"
    )
    if status.known:
        what = "had these settings" if page.is_recompression else "archived before"
        parts.append(f"{count(status.known, 'image')} {what}")
    if state in ("planning", "running", "stopping") and status.planned:
        parts.append(f"{status.done:,} of {status.planned:,} done")
        if status.eta_s is not None:
            parts.append(f"{duration(status.eta_s)} left")
    return tag("p", ", ".join(parts)[:1].upper() + ", ".join(parts)[1:] + ".", class_="lead")


def notes(page: RunPage, state: str) -> list[Html]:
    """What a reader must know before the numbers."""
    status = page.status
    found = []

    def note(*children: Child, bad: bool = False) -> None:
        found.append(tag("p", *children, class_="note bad" if bad else "note"))

    if state == "lost":
        note(
            f"The last sign of life was {duration(status.age_s(page.now))} before this page was made, by the clocks of "
            f"both machines; its driver ran on {status.host}, process {status.pid}. What was committed stays: run the "
            "same command again to go on.",
            bad=True,
        )
    elif state == "failed":
        note("It failed: ", status.error, bad=True)
    elif state == "stopped":
        note("It was stopped. What was committed stays; run the same command again to go on.")
    if page.replaced:
        verb = "has" if page.replaced == 1 else "have"
        what = "This page shows them as they were." if page.is_old else "This page shows what is left."
        note(f"{count(page.replaced, 'row')} of this run {verb} been replaced by later runs. {what}")
    elif page.rows != page.expected:
        note(
            f"The archive's log counts {count(page.expected, 'row')} of this run, {page.rows:,} were found by their "
            "time of writing: the distributions below are of those."
        )
    if bad := sum(page.by_code.values()):
        note(
            f"{count(bad, 'image')} could not be archived: ",
            tag("a", "see which, and why", href="#quarantined"),
            ".",
        )
    if page.is_recompression and (kept := status.quarantined):
        verb = "was kept as it was" if kept == 1 else "were kept as they were"
        link = (": ", tag("a", "see which, and why", href="#kept")) if page.kept else ()
        note(f"{count(kept, 'row')} {verb}", link, ".")
    return found


def saving(page: RunPage) -> Html | None:
    """Sources and streams as two bars."""
    bytes_in, bytes_out = page.status.bytes_in, page.status.bytes_out
    if not bytes_in:
        return None
    most = max(bytes_in, bytes_out)
    rows: list[Html] = []
    for label, amount in (("Sources", bytes_in), ("Archived", bytes_out)):
        kind = "part" if label == "Archived" else "all"
        rows += [
            tag("span", label, class_="label"),
            bar(amount / most, kind),
            tag("span", size(amount), class_="amount"),
        ]
    return tag("div", rows, class_="saving")


def tiles(page: RunPage) -> Html:
    status = page.status
    bpp = 8 * status.bytes_out / status.pixels if status.pixels else None
    left = "kept as before" if page.is_recompression else "quarantined"
    speed = status.pixels / 1e6 / status.seconds if status.seconds else None
    found: list[tuple[str, Child, bool]] = [
        ("images", f"{status.archived:,}", False),
        (left, f"{status.quarantined:,}", bool(status.quarantined)),
        ("bits per pixel", "–" if bpp is None else f"{bpp:.3f}", False),
        ("megapixels", f"{status.pixels / 1e6:,.1f}", False),
        ("megapixels/s", "–" if speed is None else significant(speed), False),
        ("images/s", significant(status.rate), False),
        ("workers", f"{status.workers:,}", False),
        ("workers lost", f"{status.deaths:,}", bool(status.deaths)),
        ("shards done again", f"{status.retries:,}", False),
        ("time", duration(status.seconds), False),
    ]
    cells = [
        tag("div", tag("dd", value), tag("dt", name), class_="bad" if bad else None)
        for name, value, bad in found
    ]
    return tag("dl", cells, class_="tiles")
