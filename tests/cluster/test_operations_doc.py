"""Every command of ours in the operations page is one that the command line takes, and every file there exists."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from cluster_files import CLUSTER, LAUNCHER_FILES, ROOT, load
from command_lines import parse_submitted

PAGES = (ROOT / "docs" / "operations.md", CLUSTER / "README.md")
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = re.findall(r"^ *```sh\n(.*?)^ *```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Lines that call recbatch, continued lines joined; also those that systemd-run is given."""
    found = []
    for line in (line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()):
        for part in re.split(r"&&|;|\|", line):
            if part.strip().startswith(("recbatch ", "systemd-run ")):
                words = shlex.split(part, comments=True)
                found.append(shlex.join(words[words.index("recbatch") :]))
    return found


def test_the_page_has_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_of_the_page_is_taken_by_the_real_parser(line: str) -> None:
    name, _ = parse_submitted(line)
    assert name


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_is_shell(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_files_that_the_pages_name_exist() -> None:
    named = set(re.findall(r"(?:our-)?cluster/([\w./-]+\.(?:yaml|json|cpu|gpu))", TEXT))
    named |= {f"aws/{name}" for name in re.findall(r"file://(?:our-cluster/aws/)?([\w-]+\.json)", TEXT)}
    named |= {
        f"aws/policies/{name}"
        for name in re.findall(r"^\| `([\w-]+\.json)` \|", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) > 12
    assert [name for name in named if not (CLUSTER / name).exists()] == []


def test_the_readme_lists_every_file_of_the_folder() -> None:
    readme = (CLUSTER / "README.md").read_text(encoding="utf-8")
    files = [
        path
        for folder in ("aws", "docker", "kuberay")
        for path in (CLUSTER / folder).iterdir()
        if path.is_file()
    ]
    assert [path.name for path in files if path.name not in readme] == []


def test_the_job_on_ec2_asks_for_as_many_workers_as_the_cluster_holds() -> None:
    line = next(line for line in commands() if "--gpus-per-worker" in line and "submit" in line)
    _, parameters = parse_submitted(line)
    [path] = [path for path in LAUNCHER_FILES if "gpu" in path.name]
    cluster = load(path)
    gpus = cluster["max_workers"] * cluster["available_node_types"]["gpu-spot"]["resources"]["GPU"]
    assert parameters["workers"] == gpus / parameters["gpus_per_worker"]
