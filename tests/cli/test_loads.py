"""What the command line loads: help must answer at once, so nothing heavy may be imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "ray", "pyarrow", "numba", "deltalake", "numpy", "PIL", "scipy", "rich"}


def call(*arguments: str) -> tuple[int, str, set[str]]:
    """Status, output and loaded modules of a call in a process of its own."""
    script = (
        "import sys; from recbatch.cli import main; status = main(sys.argv[1:]);"
        "print('LOADED', *{m.split('.')[0] for m in sys.modules}); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    out, _, loaded = done.stdout.rpartition("LOADED")
    return done.returncode, out + done.stderr, set(loaded.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compress", "--help"], ["compress", "a", "b", "--original", "--exact-files"]]
)
def test_help_and_usage_errors_load_nothing_heavy(arguments: list[str]) -> None:
    status, text, loaded = call(*arguments)
    assert status == (0 if "--help" in arguments else 2)
    assert "recbatch" in text or "--quality" in text
    assert loaded & HEAVY == set()


def test_the_module_runs_as_the_script_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recbatch", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("recbatch ")


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_enough_is_no_error(lines: int) -> None:
    script = (
        "import sys, typer; from recbatch.cli import app, main\n"
        "@app.app.command('flood')\n"
        "def flood() -> None:\n"
        "    sys.stdin.readline()\n"
        f"    for _ in range({lines}): sys.stdout.write('line\\n')\n"
        "    raise typer.Exit(0)\n"
        "sys.exit(main(['flood']))"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        child.stdin.write(b"\n")
        child.stdin.close()
        errors = child.stderr.read()
        assert child.wait() == 0
    assert errors == b""


def test_the_driver_of_a_job_names_its_models_without_the_networks() -> None:
    script = (
        "import sys; from recbatch.api.common import make_settings; from recbatch.codec import models_of;"
        "[models_of(make_settings(**how)) for how in ({}, {'quality': 50, 'auto': True})];"
        "import recbatch.engine.compress;"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"torch", "numba", "ray"} == set()
