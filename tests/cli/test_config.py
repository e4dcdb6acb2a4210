"""Defaults: options over variables over the file over what is built in."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Run
from recbatch.cli.config import BadConfig, read_defaults

OPTIONS = {
    "compress": {"quality": False, "include": True, "dry-run": False, "json": False},
    "ls": {"long": False},
}


def test_the_file_gives_defaults_by_command(tmp_path: Path) -> None:
    (tmp_path / "recbatch.toml").write_text("[compress]\nquality = 60\ninclude = ['*.tif']\ndry-run = true\n")
    found = read_defaults(tmp_path, {}, OPTIONS)
    assert found == {"compress": {"quality": 60, "include": ["*.tif"], "dry_run": True}}


def test_pyproject_counts_where_there_is_no_file_of_our_own(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.recbatch.ls]\nlong = true\n")
    assert read_defaults(tmp_path, {}, OPTIONS) == {"ls": {"long": True}}
    (tmp_path / "recbatch.toml").write_text("[compress]\njson = true\n")
    assert read_defaults(tmp_path, {}, OPTIONS) == {"compress": {"as_json": True}}


def test_variables_stand_above_the_file(tmp_path: Path) -> None:
    (tmp_path / "recbatch.toml").write_text("[compress]\nquality = 60\n")
    environment = {
        "RECBATCH_COMPRESS_QUALITY": "70",
        "RECBATCH_COMPRESS_INCLUDE": "*.tif *.png",
        "OTHER": "1",
    }
    found = read_defaults(tmp_path, environment, OPTIONS)
    assert found == {"compress": {"quality": "70", "include": ["*.tif", "*.png"]}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[compress]\nqualty = 60\n", "did you mean 'quality'"),
        ("[compres]\nquality = 60\n", "did you mean 'compress'"),
        ("compress = 3\n", "compress"),
        ("[compress\n", "recbatch.toml"),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "recbatch.toml").write_text(text)
    with pytest.raises(BadConfig) as caught:
        read_defaults(tmp_path, {}, OPTIONS)
    assert says in str(caught.value)


def test_an_option_of_the_call_stands_above_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECBATCH_VERIFY_SAMPLE", "200%")
    assert "200%" in run("verify", "nowhere").err
    assert "There is no archive" in run("verify", "nowhere", "--sample", "1%").err


def test_a_bad_variable_is_refused_as_a_bad_option_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECBATCH_COMPRESS_QUALITY", "300")
    outcome = run("compress", "a", "b")
    assert outcome.status == 2
    assert "--quality" in outcome.err
