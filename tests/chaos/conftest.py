import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "engine"))  # the fake codec, for this process and for its children
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
    "0"  # before Ray is imported: it listens on the loopback only
)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from engine_fakes import fill  # noqa: E402

from recbatch.archive import Archive  # noqa: E402


class Run:
    """A driver process, the lines it printed, and every process that it ever had."""

    def __init__(self, source, archive, executor, sleep_s):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
        environment.pop("RAY_ADDRESS", None)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "chaos_driver", str(source), str(archive), executor, str(sleep_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.lines = []
        self.family = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(line.strip())

    def note_family(self):
        try:
            for process in psutil.Process(self.popen.pid).children(recursive=True):
                self.family[process.pid] = process
        except psutil.NoSuchProcess:
            pass

    def until(self, line, count=1, timeout_s=120.0):
        """Wait for the n-th such line, or the end of the process."""
        deadline = time.monotonic() + timeout_s
        while self.lines.count(line) < count and self.popen.poll() is None:
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)
        self.note_family()

    def wait(self, timeout_s=120.0):
        status = self.popen.wait(timeout=timeout_s)
        self._reader.join(timeout=5)
        return status

    def sweep(self):
        """End what is left; returns how many of the family outlived their driver by more than ten seconds."""
        self.note_family()
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        _, alive = psutil.wait_procs(list(self.family.values()), timeout=10)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
        self.popen.stdout.close()
        return len(alive)


@pytest.fixture
def drive():
    runs = []

    def start(source, archive, executor="processes", sleep_s=0.004):
        runs.append(Run(source, archive, executor, sleep_s))
        return runs[-1]

    yield start
    for run in runs:
        run.sweep()


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """200 files, one of them bad, and the rows that an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("source")
    written = fill(folder, [f"{number % 7}/{number:03d}.png" for number in range(199)])
    fill(folder, ["3/bad.png"])
    want = {key: ("ok", data) for key, data in written.items()} | {"3/bad.png": ("quarantined", None)}
    return folder, want


@pytest.fixture
def check(photographs):
    """Every image once, as from an undisturbed run; the log and the files agree."""

    def look(archive):
        opened = Archive.open(str(archive))
        found = [(record.key, (record.status, record.stream)) for record in opened.records()]
        assert len(found) == len(opened) == 200
        assert dict(found) == photographs[1]

    return look
