"""Job files: a command written down, and the examples in jobs/."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import recbatch
from recbatch import api
from recbatch.cli import command_line
from recbatch.cli import run as run_module
from recbatch.cli.app import app

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "jobs").glob("*.toml"))


def root_context():
    return typer.main.get_command(app).make_context("recbatch", ["submit"], resilient_parsing=True)


def test_the_examples_are_there():
    commands = {run_module.read_job(str(path))["command"] for path in JOBS}
    assert commands == {"compress", "verify", "recompress"}
    assert len(JOBS) == 5


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_each_example_is_read_by_the_real_parser_and_fits_the_real_function(path, monkeypatch):
    root = root_context()
    job = run_module.read_job(str(path))
    line = command_line.parsed(root, ["run", str(path)])
    assert line.command == job["command"]
    assert line.archive.endswith(job["archive"])
    known = set(inspect.signature(getattr(api, line.command)).parameters)
    keys = {key.replace("-", "_") for key in job} - {"command"}
    assert {{"rotate": "rotate_days"}.get(key, key) for key in keys} <= known
    again = command_line.parsed(root, line.words)
    assert (again.words, again.same) == (line.words, line.same)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("source = 1 1", "no job file"),
        ('source = "a"', "needs command"),
        ('command = "ls"\narchive = "a"', "needs command"),
        ('command = "compress"\nsource = "a"', "lacks archive"),
        ('command = "compress"\nsource = "a"\narchive = "b"\nqualty = 1', "did you mean 'quality'"),
        ('command = "compress"\nsource = "a"\narchive = "b"\nauto = "yes"', "true or false"),
        ('command = "compress"\nsource = "a"\narchive = "b"\nquality = [1, 2]', "one value"),
        (
            'command = "compress"\nsource = "a"\narchive = "b"\nquality = 101',
            "'quality' can't be 101: it should be less than or equal to 100",
        ),
        (
            'command = "compress"\nsource = "a"\narchive = "b"\nworkers = "two"',
            "'workers' can't be 'two': it should be a valid integer",
        ),
    ],
)
def test_a_bad_job_file_is_one_line_of_wrong_usage(run, tmp_path, text, problem):
    path = tmp_path / "job.toml"
    path.write_text(text)
    outcome = run("run", path)
    assert outcome.status == 2
    assert outcome.err.startswith(f"Error: {path}: ")
    assert problem in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_job_file_is_run_as_its_command_would_be(run, tmp_path, monkeypatch):
    """The demo's example, with workers of this process: Ray is started by other tests."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "jobs/demo.toml").read_text().replace("docs/demo", f"{ROOT}/docs/demo")
    Path("job.toml").write_text(f'{text}executor = "inline"\n')
    outcome = run("run", "job.toml", "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out.splitlines()[-1])["images"] == 12
    assert len(recbatch.open("demo-out/originals.rba")) == 12
    again = run("run", "job.toml")
    assert again.out.startswith("nothing new")


def test_the_entry_point_for_images_without_the_command_is_the_same(tmp_path):
    (tmp_path / "job.toml").write_text('command = "verify"\narchive = "gone"\n')
    called = [sys.executable, ROOT / "jobs/run.py", tmp_path / "job.toml"]
    done = subprocess.run(called, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3
    assert "There is no archive at" in done.stderr
