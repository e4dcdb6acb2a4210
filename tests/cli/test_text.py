"""Sizes, durations, columns and JSON."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.cli.text import bytes_text, columns, duration_text, key_text, one_line, plain, print_json
from recbatch.cli.verify import BadSample, parse_share


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (11_000, "11.0 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (-2_500_000, "-2.50 MB"),
    ],
)
def test_sizes_have_three_figures(size: int, text: str) -> None:
    assert bytes_text(size) == text


def test_keys_are_one_line_each_and_bash_reads_back_those_that_are_spelled_out() -> None:
    plain_keys = ["a.png", "with space/ü.png", "it's.png", "back\\slash.png"]
    assert [key_text(key) for key in plain_keys] == plain_keys
    odd = [
        "two\nlines",
        "tab\tcr\r",
        "red\x1b[31m",
        "it's \\ and\n",
        "c1\x85\u2028\u202e",
        "$'a'",
        "\x01f\x7f",
    ]
    words = [key_text(key) for key in odd]
    assert words[0] == r"$'two\nlines'"
    assert all(one_line(word) == word for word in words)
    script = f"printf '%s\\0' {' '.join(words)}"
    read = subprocess.run(["bash", "-c", script], env={"LC_ALL": "C.UTF-8"}, capture_output=True, check=True)
    assert read.stdout.decode().split("\0")[:-1] == odd


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (59.6, "60 s"), (125, "2 min 05 s"), (7265, "2 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_columns_align_and_leave_no_trailing_space() -> None:
    assert columns([["name", "size"], ["a", "10"], ["long name", "5"]], right=[1]) == (
        "name       size\na            10\nlong name     5"
    )


@dataclass(frozen=True)
class Row:
    digest: bytes
    when: dt.datetime
    psnr: float
    notes: tuple[str, ...]


def test_rows_become_plain_json(capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(b"\x01\xff", dt.datetime(2026, 1, 2, tzinfo=dt.UTC), float("inf"), ("ä",))
    print_json({("a", "b"): row})
    assert json.loads(capsys.readouterr().out) == {
        "a/b": {"digest": "01ff", "when": "2026-01-02T00:00:00+00:00", "psnr": None, "notes": ["ä"]}
    }


@given(st.recursive(st.none() | st.floats() | st.binary() | st.text(), st.lists))
def test_whatever_is_plain_is_json(value: object) -> None:
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.25", 0.25), ("100%", 1.0), ("1", 1.0)])
def test_a_share_is_a_percentage_or_a_fraction(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "101%", "-1%", "nan", "half", "%"])
def test_anything_else_is_no_share(text: str) -> None:
    with pytest.raises(BadSample, match="Give a percentage"):
        parse_share(text)
