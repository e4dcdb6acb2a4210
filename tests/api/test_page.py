"""The page of a run: right numbers, nothing unescaped, honest where something is missing."""

from __future__ import annotations

import base64
import io
import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from page_runs import EVIL, EVIL_FILE, TURNED, Ledger, picture
from PIL import Image

import recbatch
from recbatch.api import RunPage, keep_page, run_page
from recbatch.api.page_html import join, tag, text
from recbatch.api.page_pictures import BUDGET_BYTES, one, worst_place
from recbatch.archive import Archive, vacuum
from recbatch.cli import main
from recbatch.engine import events
from recbatch.engine.journal import Journal
from recbatch.engine.runs import LOST_AFTER_S, UnknownRun, read_run

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Holds that tags close in their order, and collects what is there."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def rows(number: int, **values: object) -> list[dict[str, object]]:
    return [{"key": f"{place:05d}.png", **values} for place in range(number)]


def test_the_page_has_the_numbers_of_its_run(ledger: Ledger) -> None:
    ledger.run(rows(3, psnr=20.0))
    many = [
        {
            "key": f"n{place:03d}.png",
            "psnr": 30 + place / 10,
            "ms_ssim": 0.9 + place / 10_000,
            "stream": b"s" * place,
        }
        for place in range(1, 101)
    ]
    bad = [{"key": f"bad{place}.png", "status": "quarantined"} for place in range(3)]
    ledger.run([*many, *bad, {"key": "same.png", "psnr": float("inf")}], deaths=2, retries=3)
    page = run_page(ledger.archive.url)
    assert (page.rows, page.expected, page.replaced) == (104, 104, 0)
    (group,) = page.groups
    assert (group.images, group.bytes_in, group.bytes_out) == (101, 101_000, 5050 + 100)
    psnr, ms_ssim, share = page.histograms
    assert sum(psnr.counts) == 100
    assert psnr.more == "1 more are identical to their sources"
    assert psnr.median == pytest.approx(35.0, abs=0.11)
    assert (psnr.p05, psnr.p95) == (pytest.approx(30.5, abs=0.11), pytest.approx(39.5, abs=0.11))
    assert ms_ssim.median == pytest.approx(0.905, abs=0.0006)
    assert (sum(share.counts), share.unit) == (101, "%")
    assert [worst.row.psnr for worst in page.worst] == pytest.approx([30.1, 30.2, 30.3, 30.4, 30.5, 30.6])
    assert page.by_code == {"truncated-image": 3}
    found = Reader(page.html()).text
    for words in ("101 images in 5.1% of their size", "workers lost", "bad0.png", "s3://photos/2026", "30 s"):
        assert words in found, words
    assert json.loads(json.dumps(page.to_dict()))["rows_committed"] == 104


def test_the_bars_of_a_histogram_count_every_image_once(ledger: Ledger) -> None:
    values = [0.0, 9.99, 10.0, 29.999, 30.0, 55.5, 99.99, 140.0]
    ledger.run([{"key": f"{place}.png", "psnr": value} for place, value in enumerate(values)])
    psnr = run_page(ledger.archive.url, pictures=False).histograms[0]
    edges = [psnr.low + psnr.step * place for place in range(len(psnr.counts) + 1)]
    found = np.histogram(np.minimum(values, edges[-1] - 0.01), edges)[0]
    assert list(psnr.counts) == found.tolist()


def test_a_page_holds_no_markup_of_its_keys(ledger: Ledger) -> None:
    evil = [
        {"key": EVIL, "psnr": 20.0},
        {"key": TURNED, "psnr": 21.0},
        {"key": "</table><img src=x onerror=alert(1)>", "status": "quarantined", "error": "<b>not bold</b>"},
        {"key": "q", "status": "quarantined", "error_code": '"><script>', "error": "x"},
        {"key": "lossless<i>", "codec": "lossless", "model": "<u>", "psnr": None},
    ]
    page = recbatch.report(ledger.archive.url, ledger.run(evil))
    reader = Reader(page)
    assert not {"script", "b", "i", "u", "a:"} & {name for name, _ in reader.tags}
    assert [image for image in reader.all("img") if "onerror" in image] == []
    assert EVIL in reader.text
    assert "<b>not bold</b>" in reader.text
    assert "a\\u202egnp.exe\\u0007.png" in reader.text
    assert "\u202e" not in page
    links = [
        attributes[name] for _, attributes in reader.tags for name in ("src", "href") if name in attributes
    ]
    assert all(link is not None and link.startswith(("data:image/webp;base64,", "#")) for link in links)
    (policy,) = (meta["content"] for meta in reader.all("meta") if "http-equiv" in meta)
    assert (policy or "").startswith("default-src 'none'")


def test_escaping_is_the_default() -> None:
    assert (
        tag("p", "<i>", tag("b", "&"), None, 3, class_='"') == '<p class="&quot;">&lt;i&gt;<b>&amp;</b>3</p>'
    )
    assert join(["a<", ["b", None]]) == "a&lt;b"
    assert text("\ud800 \x00 \u2066") == "\\ud800 \\u0000 \\u2066"
    assert text("née 写真 🖼") == "née 写真 🖼"


def test_rows_of_other_runs_are_not_counted(ledger: Ledger) -> None:
    first = ledger.run(rows(10, psnr=20.0), shards=3)
    second = ledger.run([{"key": "00003.png", "psnr": 40.0}, {"key": "zz.png", "psnr": 41.0}], shards=1)
    then = run_page(ledger.archive.url, first, pictures=False)
    assert (then.rows, then.expected, then.replaced, then.is_old) == (10, 10, 1, True)
    assert (
        "1 row of this run has been replaced by later runs. This page shows them as they were."
        in Reader(then.html()).text
    )
    now = run_page(ledger.archive.url, second, pictures=False)
    assert (now.rows, now.expected, now.replaced) == (2, 2, 0)  # not the file that was written anew for it
    assert [worst.row.key for worst in now.worst] == ["00003.png", "zz.png"]


def test_what_vacuum_took_is_missed_and_said(ledger: Ledger) -> None:
    first = ledger.run(rows(10, psnr=20.0), shards=2)
    ledger.run([{"key": "00003.png", "psnr": 40.0}], shards=1)
    assert vacuum(ledger.archive, grace=timedelta(0), dry_run=False, force=True)
    page = run_page(ledger.archive.url, first, pictures=False)
    assert (page.rows, page.expected, page.replaced, page.is_old) == (9, 10, 1, False)
    assert "This page shows what is left." in Reader(page.html()).text


def test_times_that_do_not_fit_the_log_are_said(ledger: Ledger) -> None:
    early = ledger.clock - timedelta(days=1)  # a worker whose clock is a day behind
    run = ledger.run([*rows(4), {"key": "late.png", "created_at": early}])
    page = run_page(ledger.archive.url, run, pictures=False)
    assert (page.rows, page.expected) == (4, 5)
    assert "counts 5 rows of this run, 4 were found" in Reader(page.html()).text


def test_the_worst_images_stand_beside_their_sources(lossy_run: tuple[Path, Path, RunPage]) -> None:
    source, url, page = lossy_run
    assert page.by_code == {"not-an-image": 1}
    rough, evil = page.worst[0], page.worst[1]
    assert rough.row.key == "rough.png"
    assert evil.row.key == EVIL_FILE
    assert rough.problem == ""
    crop = Image.open(io.BytesIO(base64.b64decode(rough.source.partition(",")[2]))).convert("RGB")
    x, y, width, height = (value / 100 for value in rough.frame)
    assert x + width > 0.95  # the noise is down there
    assert y + height > 0.95
    box = (round(x * 320), round(y * 288), round((x + width) * 320), round((y + height) * 288))
    with Image.open(source / "rough.png") as original:
        assert crop.tobytes() == original.crop(box).tobytes()  # one to one, and nothing lost
    restored = Image.open(io.BytesIO(base64.b64decode(rough.restored.partition(",")[2]))).convert("RGB")
    assert restored.tobytes() == recbatch.open(url).image("rough.png").crop(box).tobytes()
    assert restored.tobytes() != crop.tobytes()
    html = page.html()
    assert len(html) < BUDGET_BYTES * 4 / 3 + 100_000
    assert len(Reader(html).all("img")) == 3 * len(page.worst)


def test_a_source_that_is_gone_or_changed_is_said(lossy_run: tuple[Path, Path, RunPage]) -> None:
    source, url, page = lossy_run
    row, opened = page.worst[0].row, recbatch.open(url)
    kept = (source / "rough.png").read_bytes()
    try:
        picture(9, 90).save(source / "rough.png", compress_level=0)
        assert one(opened, row, sources=True).problem == "Its source has changed since it was archived."
        (source / "rough.png").unlink()
        worst = one(opened, row, sources=True)
        assert worst.problem.startswith("Its source can't be read: ")
        assert worst.whole
        assert worst.source == ""
    finally:
        (source / "rough.png").write_bytes(kept)
    assert one(opened, row, sources=False).problem == "Sources were not to be read."


def test_the_worst_place_is_where_the_error_is() -> None:
    source = picture(0, 0, (700, 530))
    pixels_HWC = np.asarray(source).copy()
    pixels_HWC[400:420, 600:640] ^= 64
    x, y, width, height = worst_place(source, Image.fromarray(pixels_HWC))
    assert (width, height) == (240, 240)
    assert x <= 600
    assert x + width >= 640
    assert y <= 400
    assert y + height >= 420
    tiny = Image.new("RGB", (3, 1))
    assert worst_place(tiny, tiny) == (0, 0, 3, 1)


def test_a_run_without_rows_has_a_page_too(ledger: Ledger) -> None:
    with Journal(ledger.archive, job="compress", now=lambda: ledger.clock.timestamp()) as journal:
        journal(events.Planned(images=5, bytes=9, shards=1, known=2, skipped=0, workers=1))
        status = journal.status
        page = run_page(ledger.archive.url, now=status.heartbeat)
        assert "Nothing is archived yet" in Reader(page.html()).text
        # the status that was written first was of its planning; what follows is as if the driver had died then
        later = run_page(ledger.archive.url, now=status.heartbeat + timedelta(seconds=LOST_AFTER_S + 60))
        assert "The last sign of life was 3 min 00 s before this page was made" in Reader(later.html()).text
    with pytest.raises(ValueError, match="on purpose"), Journal(ledger.archive, job="compress"):
        raise ValueError("on purpose")
    assert "It failed: ValueError: on purpose" in Reader(recbatch.report(ledger.archive.url)).text
    with pytest.raises(UnknownRun):
        recbatch.report(ledger.archive.url, "19990101T")


def test_a_page_is_kept_beside_the_journal_and_costs_no_job(ledger: Ledger, tmp_path: Path) -> None:
    run = ledger.run(rows(3))
    name = keep_page(ledger.archive.url)
    assert name == f"jobs/{run}/report.html"
    kept = ledger.archive.object(name or "")
    assert kept is not None
    assert kept.startswith(b"<!doctype html>")
    assert read_run(ledger.archive).run == run  # the page is no run
    assert keep_page(tmp_path / "none") is None


def test_the_command_writes_the_page_and_says_where(
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    run = ledger.run(rows(2))
    monkeypatch.chdir(tmp_path)
    assert main(["report", ledger.archive.url]) == 0
    assert capsysbinary.readouterr().out == f"recbatch-{run}.html\n".encode()
    Reader((tmp_path / f"recbatch-{run}.html").read_text(encoding="utf-8"))
    assert main(["report", ledger.archive.url]) == 2  # it is there already
    assert main(["report", ledger.archive.url, run[:10], "-o", "-", "--no-sources"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"<!doctype html>")
    assert main(["report", ledger.archive.url, "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["rows"] == 2
    assert main(["report", ledger.archive.url, "1999"]) == 2
    assert main(["report", str(tmp_path / "none")]) == 3


def test_many_rows_are_read_in_bounded_parts(ledger: Ledger) -> None:
    bad = [{"key": f"bad{place:04d}.png", "status": "quarantined"} for place in range(450)]
    page = run_page(ledger.archive.url, ledger.run([*rows(2000), *bad], shards=4), pictures=False)
    assert (page.rows, len(page.quarantined), page.by_code) == (2450, 200, {"truncated-image": 450})
    found = Reader(page.html()).text
    assert "450 truncated-image. The first 200 are listed." in found
    assert len(re.findall(r"bad\d{4}\.png", found)) == 200


def test_an_archive_of_an_earlier_release_has_a_page(ledger: Ledger) -> None:
    run = ledger.run(rows(3))
    text = json.loads(ledger.archive.object(f"jobs/{run}.json") or b"")
    old = {name: value for name, value in text.items() if name not in ("run", "state", "started", "error")}
    other = Archive.open(ledger.archive.url)
    other.put_object("jobs/20990101T000000Z-0000000000000000.json", json.dumps(old).encode())
    page = run_page(other.url, pictures=False)
    assert page.status.run.startswith("2099")
    assert page.rows == 3
    assert "3 images in 10.0% of their size" in Reader(page.html()).text
