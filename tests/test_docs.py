"""The documentation names what exists: every command, option, public name and exit status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import recbatch
from recbatch.cli.app import app

ROOT = Path(recbatch.__file__).parent.parent
CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, Any]]:
    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield name, command
            return
        for child_name, child in children.items():
            yield from walk(f"{name} {child_name}".strip(), child)

    yield from walk("", typer.main.get_command(app))


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_stands_in_the_page(name: str) -> None:
    headings = [line for line in CLI_PAGE.splitlines() if line.startswith("## ")]
    assert any(re.search(rf"(^## |, ){re.escape(name)}\b", line) for line in headings), (
        f"no heading for {name}"
    )
    missing = [
        option
        for parameter in COMMANDS[name].params
        if parameter.param_type_name == "option"
        for option in parameter.opts
        if not re.search(rf"`{re.escape(option)}\b|, `{re.escape(option)}\b", CLI_PAGE)
    ]
    assert missing == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_two_examples_that_call_existing_options(name: str) -> None:
    help_text = COMMANDS[name].help or ""
    examples = [line.strip() for line in help_text.splitlines() if line.strip().startswith("recbatch ")]
    piped = [line for line in help_text.splitlines() if "| recbatch " in line]
    assert len(examples) + len(piped) >= 2, f"{name} has {len(examples)} examples"
    for example in examples:
        words = example.split()[1:]
        target = next((n for n in COMMANDS if words[: len(n.split())] == n.split()), None)
        assert target is not None, example
        known = {option for parameter in COMMANDS[target].params for option in parameter.opts} | {"--help"}
        used = {word for word in words if word.startswith("--")}
        assert used <= known, example


def test_options_in_the_page_exist() -> None:
    known = {option for c in COMMANDS.values() for p in c.params for option in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--version", "--install-completion", "--show-completion"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", CLI_PAGE)) <= known


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_public_name_is_importable_and_documented() -> None:
    for name in recbatch.__all__:
        value = getattr(recbatch, name)
        assert isinstance(value, str) or value.__doc__, name
    assert set(recbatch.__all__) <= set(dir(recbatch))
    with pytest.raises(AttributeError, match="no attribute 'archive_everything'"):
        _ = recbatch.archive_everything


def test_demo_photographs_are_those_that_the_licence_table_names() -> None:
    folder = ROOT / "docs" / "demo" / "photographs"
    table = (folder / "LICENSES.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| (\S+\.(?:jpg|png)) ", table, re.MULTILINE))
    assert named == {path.name for path in folder.iterdir() if path.suffix in {".jpg", ".png"}}
    assert len(named) == 12
