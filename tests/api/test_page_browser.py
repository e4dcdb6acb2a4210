"""The page in a real browser: it shows, it complains of nothing, it asks for nothing, it fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from page_browser import Browser, find_browser, running
from page_runs import EVIL_FILE, Ledger

import recbatch
from recbatch.api import RunPage

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium here: install one, or name it in RECBATCH_BROWSER"
)

LOOK = """(() => {
  const text = element => element ? element.innerText : '';
  const channels = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = color => channels(color).map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = getComputedStyle(document.body).backgroundColor;
  const contrast = selector => {
    const found = document.querySelector(selector);
    if (!found) return 21;
    const [a, b] = [light(getComputedStyle(found).color), light(paper)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const wide = [...document.querySelectorAll('body *')].filter(element => {
    const box = element.getBoundingClientRect();
    return box.right > innerWidth + 1 && !element.closest('.scroll') && !element.closest('svg');
  });
  return {
    title: document.title,
    heading: text(document.querySelector('h1')),
    words: document.body.innerText,
    overflow: document.documentElement.scrollWidth - innerWidth,
    wide: wide.map(element => element.outerHTML.slice(0, 120)),
    paper: light(paper),
    contrasts: ['h1', '.lead', 'figcaption', 'th', 'a', '.badge', '.tiles .bad dd'].map(contrast),
    plots: [...document.querySelectorAll('svg.plot')].map(plot => {
      const box = plot.getBoundingClientRect();
      return [box.width, box.height, plot.querySelectorAll('rect, path').length];
    }),
    images: [...document.images].map(image => [image.naturalWidth, image.complete, image.className, image.width]),
    named: [...document.querySelectorAll('svg[role=img]')].every(plot =>
      plot.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id).textContent)),
    ids: [...document.querySelectorAll('[id]')].map(element => element.id),
  };
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running(str(PROGRAM)) as found:
        yield found


def check(browser: Browser, page: Path, width: int, scheme: str) -> dict:
    visit = browser.visit(page, LOOK, width=width, scheme=scheme)
    assert visit.complaints == []
    assert visit.requests == []
    seen = visit.value
    assert seen["overflow"] <= 0, seen["wide"]
    assert seen["wide"] == []
    assert min(seen["contrasts"]) >= 4.5, seen["contrasts"]  # WCAG AA for small letters
    assert seen["named"]
    assert len(set(seen["ids"])) == len(seen["ids"])
    return seen


@pytest.mark.parametrize(
    ("width", "scheme"), [(1200, "light"), (1200, "dark"), (400, "light"), (320, "dark")]
)
def test_a_page_with_pictures_shows_in_any_window(
    width: int, scheme: str, browser: Browser, lossy_run: tuple[Path, Path, RunPage], tmp_path: Path
) -> None:
    shown = lossy_run[2]
    page = tmp_path / "page.html"
    page.write_text(shown.html(), encoding="utf-8")
    seen = check(browser, page, width, scheme)
    assert seen["title"] == f"recbatch run {shown.status.run}"
    assert "of their size" in seen["heading"]
    assert EVIL_FILE in seen["words"]
    assert "broken.png" in seen["words"]
    assert (seen["paper"] < 0.1) == (scheme == "dark")
    assert len(seen["images"]) == 9
    assert all(natural > 0 and complete for natural, complete, _, _ in seen["images"])
    crops = [(natural, shown) for natural, _, kind, shown in seen["images"] if kind == "crop"]
    assert all(natural == shown for natural, shown in crops)  # one to one, at any width
    assert all(w > 150 and h > 150 and marks for w, h, marks in seen["plots"])


def test_a_page_of_long_names_and_many_rows_fits_a_narrow_window(
    browser: Browser, ledger: Ledger, tmp_path: Path
) -> None:
    long = "a-very-long-name-without-any-place-to-break-it" * 6
    rows = [{"key": f"{long}/{place}.png", "psnr": 30 + place % 17} for place in range(300)]
    rows += [{"key": f"{long}{place}.png", "status": "quarantined", "error": long} for place in range(250)]
    rows += [
        {"key": f"l{place}{long}", "codec": "lossless", "psnr": None, "stream": b"s" * 900}
        for place in range(9)
    ]
    ledger.run(rows, shards=40, deaths=3)
    page = tmp_path / "page.html"
    page.write_text(recbatch.report(ledger.archive.url), encoding="utf-8")
    seen = check(browser, page, 400, "light")
    assert "The first 200 are listed" in seen["words"]
    assert len(seen["plots"]) == 4  # three distributions and the pace
    assert "workers lost" in seen["words"]
