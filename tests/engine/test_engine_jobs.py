import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("compress_job", ROOT / "jobs/compress.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_job_file_is_run_and_reported(tmp_path, job, capsys):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "in/a.png")
    path = tmp_path / "job.toml"
    path.write_text(
        f'source = "{tmp_path}/in"\narchive = "{tmp_path}/out.rba"\noriginal = true\nexecutor = "inline"\n'
    )
    assert job.main([str(path)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 1
    assert "Committed" in err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("source = 1 1", "no job file"),
        ('source = "a"', "lacks archive"),
        ('source = "a"\narchive = "b"\ntypo = 1', "unknown keys: typo"),
        ('source = "/nowhere/at/all"\narchive = "b"\noriginal = true', "no source"),
    ],
)
def test_a_bad_job_file_is_one_line_and_a_status(tmp_path, job, capsys, text, problem):
    path = tmp_path / "job.toml"
    path.write_text(text)
    assert job.main([str(path)]) in (2, 3)
    assert problem in capsys.readouterr().err


def test_no_file_is_wrong_usage(job, capsys):
    assert job.main([]) == 2
    assert "Usage" in capsys.readouterr().err


def test_the_example_is_one(job):
    assert job.load_job(str(ROOT / "jobs/photos.toml"))["quality"] == 50
