"""A run's page, section by section."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from recbatch.api import page_charts as charts
from recbatch.api.page_charts import bar
from recbatch.api.page_html import Child, Html, facts, table, tag
from recbatch.api.page_top import top
from recbatch.api.page_words import count, duration, moment, share, shown, size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recbatch.api.page import RunPage
    from recbatch.api.page_pictures import Worst
    from recbatch.api.page_sums import Group, Row

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
STAGES = {
    "read": "waiting for sources",
    "encode": "encoding, decoding, measuring",
    "write": "writing files",
    "commit": "committing",
}


def render(page: RunPage) -> str:
    """The whole document."""
    style = files("recbatch.api").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"recbatch run {page.status.run}"),
        tag("style", Html(style)),
    )
    sections = [
        quality(page),
        codecs(page),
        pace(page),
        worst(page),
        least_saved(page),
        quarantine(page),
        kept(page),
        made_by(page),
    ]
    body = tag("body", top(page), tag("main", sections), foot(page))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def section(title: str, *children: Child, anchor: str | None = None) -> Html:
    return tag("section", tag("h2", title), *children, id=anchor)


def codecs(page: RunPage) -> Html | None:
    if not page.groups:
        return None
    rows = [group_row(group) for group in page.groups]
    return section(
        "By codec and model",
        table(
            ["codec", "model", "images", "bytes in", "bytes out", "of the source", "bits per pixel"],
            rows,
            numbers=range(2, 7),
        ),
    )


def group_row(group: Group) -> list[Child]:
    bpp = f"{8 * group.bytes_out / group.pixels:.3f}" if group.pixels else "–"
    model: Child = group.name or (tag("span", group.model[:16], class_="mono") if group.model else "–")
    sizes = [size(group.bytes_in), size(group.bytes_out), share(group.bytes_out, group.bytes_in)]
    return [group.codec or "–", model, f"{group.images:,}", *sizes, bpp]


def quality(page: RunPage) -> Html | None:
    if not page.histograms:
        return None
    return section(
        "Quality and size",
        tag("div", [charts.histogram(one) for one in page.histograms], class_="pair three"),
    )


def pace(page: RunPage) -> Html | None:
    plot = charts.throughput(page.status.history, page.status.seconds)
    seconds: dict[str, float] = dict(page.status.report.get("stages") or {})
    if plot is None and not seconds:
        return None
    return section("Pace", tag("div", plot, stages(seconds) if seconds else None, class_="pair"))


def stages(seconds: dict[str, float]) -> Html:
    whole = sum(seconds.values()) or 1.0
    rows: list[Html] = []
    for name in sorted(seconds, key=lambda name: -seconds[name]):
        rows += [
            tag("span", STAGES.get(name, name)),
            bar(seconds[name] / whole),
            tag("span", duration(seconds[name]), class_="amount"),
        ]
    caption = tag("figcaption", "Summed over all workers; the driver commits beside them.")
    return tag("figure", tag("h3", "Where the time went"), tag("div", rows, class_="chart stages"), caption)


def worst(page: RunPage) -> Html | None:
    if not page.worst:
        return None
    return section(
        "The worst images",
        tag(
            "p",
            "Lowest PSNR of the run. The crops show the place where restoration and source differ most, one pixel of "
            "the image on one pixel of the page.",
            class_="sub",
        ),
        tag("div", [worst_one(one) for one in page.worst], class_="worst"),
    )


def worst_one(one: Worst) -> Html:
    row = one.row
    measures = [f"{row.psnr:.2f} dB" if row.psnr is not None else ""]
    measures += [f"MS-SSIM {row.ms_ssim:.4f}" if row.ms_ssim is not None else ""]
    measures += [f"quality {row.quality:g}" if row.quality is not None else ""]
    measures += [f"{row.width} × {row.height}", f"{size(row.source_size)} to {size(row.stream_size)}"]
    views = []
    if one.whole:
        views.append(view(whole(one), "restored, whole"))
    if one.source:
        views.append(view(crop(one, one.source, "source"), "source, 1:1"))
        views.append(view(crop(one, one.restored, "restoration"), "restored, 1:1"))
    return tag(
        "article",
        tag("h3", tag("bdi", row.key, class_="key")),
        tag("p", " · ".join(filter(None, measures)), class_="measure"),
        tag("div", views, class_="views") if views else None,
        tag("p", one.problem, class_="measure") if one.problem else None,
    )


def view(picture: Html, caption: str) -> Html:
    return tag("figure", picture, tag("figcaption", caption))


def whole(one: Worst) -> Html:
    picture = tag("img", src=one.whole, alt=f"restored {one.row.key}")
    frame = None
    if one.source:
        x, y, width, height = (f"{value:.2f}%" for value in one.frame)
        places = {"x": x, "y": y, "width": width, "height": height}
        frames = [tag("rect", class_=kind, **places) for kind in ("frame under", "frame")]
        frame = tag("svg", frames, aria_hidden="true")
    return tag("span", picture, frame, class_="whole")


def crop(one: Worst, uri: str, what: str) -> Html:
    width, height = one.crop
    return tag(
        "img",
        src=uri,
        width=width,
        height=height,
        class_="crop",
        alt=f"{what} of {one.row.key}, its worst place",
    )


def least_saved(page: RunPage) -> Html | None:
    if not page.least_saved:
        return None
    return section(
        "Where coding without loss saves least",
        table(
            ["image", "codec", "pixels", "source", "archived", "of the source"],
            [least_row(row) for row in page.least_saved],
            numbers=range(2, 6),
        ),
    )


def least_row(row: Row) -> list[Child]:
    sizes = [size(row.source_size), size(row.stream_size), share(row.stream_size, row.source_size)]
    return [tag("bdi", row.key, class_="key"), row.codec, f"{row.width} × {row.height}", *sizes]


def quarantine(page: RunPage) -> Html | None:
    total = sum(page.by_code.values())
    if not total:
        return None
    codes = ", ".join(f"{number:,} {code}" for code, number in page.by_code.items())
    shown = f" The first {len(page.quarantined):,} are listed." if total > len(page.quarantined) else ""
    return section(
        "Quarantined",
        tag(
            "p",
            f"{codes}.{shown} Mend their sources and run the same command with ",
            tag("code", "--retry-quarantined"),
            ".",
            class_="sub",
        ),
        failures(page.quarantined),
        anchor="quarantined",
    )


def kept(page: RunPage) -> Html | None:
    """Of a recompression."""
    if not page.kept:
        return None
    more = page.status.quarantined > len(page.kept)
    shown = f" The first {len(page.kept):,} are listed." if more else ""
    return section(
        "Kept as before",
        tag("p", f"These rows were not coded again, and stand as they did.{shown}", class_="sub"),
        failures(page.kept),
        anchor="kept",
    )


def failures(rows: Iterable[tuple[str, str, str]]) -> Html:
    return table(
        ["image", "code", "what happened"],
        [
            [tag("bdi", key, class_="key"), tag("code", code), without_key(error, key)]
            for key, code, error in rows
        ],
    )


def without_key(error: str, key: str) -> str:
    """Most sentences begin with the key, which stands beside."""
    rest = error.removeprefix(f"{key}: ")
    return rest[:1].upper() + rest[1:]


def made_by(page: RunPage) -> Html:
    status = page.status
    settings = [
        (name, shown(value)) for name, value in sorted(status.settings.items()) if value not in (None, "")
    ]
    run: list[tuple[str, Child]] = [
        ("run", tag("span", status.run, class_="mono")),
        ("plan", tag("span", status.plan[:32] or "–", class_="mono")),
        ("submitted as", status.submission or "–"),
        ("driver", f"{status.host or 'unknown'}, process {status.pid}" if status.host else "–"),
        ("workers on", status.executor or "–"),
        ("archive version", f"{status.version:,}" if status.version >= 0 else "–"),
        ("started", moment(status.started)),
        ("ended" if status.finished else "last sign of life", moment(status.finished or status.heartbeat)),
        *((name, version) for name, version in status.versions.items()),
    ]
    if peak := status.report.get("peak_rss_bytes"):
        run.append(("largest worker", size(peak)))
    return section(
        "How it was made",
        tag(
            "div",
            tag("div", tag("h3", "Settings"), facts(settings)) if settings else None,
            tag("div", tag("h3", "Run"), facts(run)),
            class_="pair",
        ),
    )


def foot(page: RunPage) -> Html:
    rows = (
        f"Distributions are of {count(page.rows, 'row')} in version {page.as_of} of the archive. "
        if page.rows
        else ""
    )
    return tag("footer", tag("p", f"{rows}Page made {moment(page.now)}. It loads nothing from elsewhere."))
