"""Checks of this machine: Python, packages, cores, disks, torch, kernels, models."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from recbatch.health import Check, of_error, ok, problem, warning

OLDEST = (3, 11)
WORKER_BYTES = 500 << 20
BASE_BYTES = 1 << 30
LOW_DISK_BYTES = 2 << 30
LOW_SHARED_BYTES = 250 << 20  # Ray's object store of a local run has 200 MiB


def python() -> Iterator[Check]:
    from recbatch import __version__

    text = f"{platform.python_version()}, recbatch {__version__}, {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST:
        yield problem("python", text, "Install Python 3.11 or newer.")
    else:
        yield ok("python", text)


def packages() -> Iterator[Check]:
    """Whether what the package requires is there, in the versions it asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("recbatch") or ()]
    except metadata.PackageNotFoundError:  # as a job's code on a cluster it is no installed package
        yield ok("packages", "not installed as a package: the versions it asks for are not known here")
        return
    core = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    lepton = [each for each in wanted if each.name == "lepton-jpeg-python"][:1]
    wrong = [text for each in core if (text := _lacking(each.name, each.specifier)) is not None]
    if wrong:
        yield problem("packages", "; ".join(wrong), "Run 'pip install --upgrade recbatch', or install these.")
    else:
        names = ("ray", "torch", "deltalake", "pyarrow", "numba")
        yield ok("packages", ", ".join(f"{name} {metadata.version(name)}" for name in names))
    for each in lepton:
        if _lacking(each.name, each.specifier) is None:
            yield ok("lepton", f"{metadata.version(each.name)}: JPEG files are recoded by Lepton too")
        else:
            yield ok("lepton", "not installed, and not needed; 'recbatch[lepton]' makes JPEG files smaller")


def _lacking(name: str, specifier: object) -> str | None:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    fits = specifier.contains(found, prereleases=True)  # type: ignore[attr-defined]
    return None if fits else f"{name} is {found}, wanted {specifier}"


def cores() -> Iterator[Check]:
    from recbatch.engine.resources import cpus_available

    count, free = cpus_available(), free_memory()
    if free is None:
        yield ok("cores", f"{count}; free memory is not known on this system")
        return
    text = f"{count}, with {free / 1e9:.1f} GB of memory free"
    fitting = max(1, int((free - BASE_BYTES) / WORKER_BYTES))
    if fitting < count:
        remedy = f"Give --workers {fitting}: each takes half a GB and more, by the size of the images."
        yield warning("cores", text, remedy)
    else:
        yield ok("cores", text)


def free_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that could be had, within the container's limit; None where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in proc.read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        return min(free, max(0, limit - used))
    except (OSError, ValueError):  # no limit, or another kind of system
        return free


def temporary_files() -> Iterator[Check]:
    folder = tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile(prefix="recbatch-", dir=folder) as file:
            file.write(b"recbatch")
    except OSError as error:
        text = f"{folder} can't be written: {error.strerror or error}"
        yield problem("temporary files", text, "Name a folder that can by TMPDIR.")
        return
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {free / 1e9:.1f} GB free"
    if free < LOW_DISK_BYTES:
        yield warning("temporary files", text, "Free some space, or name another folder by TMPDIR.")
    else:
        yield ok("temporary files", text)
    yield from shared_memory()


def shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Check]:
    """Ray keeps its objects there; containers often get 64 MB."""
    if not folder.is_dir():
        return
    size = shutil.disk_usage(folder).total
    text = f"{folder}, {size / 1e6:,.0f} MB"
    if size < LOW_SHARED_BYTES:
        remedy = "Give the container more, by --shm-size=512m or a memory volume; Ray uses slower files until then."
        yield warning("shared memory", text, remedy)
    else:
        yield ok("shared memory", text)


def torch() -> Iterator[Check]:
    import torch

    yield ok("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def gpu() -> Iterator[Check]:
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            yield ok("gpu", "none; none is needed")
        elif torch.version.cuda is None:
            remedy = "Install torch from PyTorch's own index for CUDA, or leave --gpus-per-worker out."
            yield warning("gpu", "there seems to be one, and this torch is for the CPU alone", remedy)
        else:
            remedy = "Run nvidia-smi: the driver may be too old, or the container may have no GPU."
            yield warning("gpu", f"torch for CUDA {torch.version.cuda} finds none", remedy)
        return
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        yield ok(
            "gpu",
            f"{number}: {device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}",
        )


def kernels() -> Iterator[Check]:
    """Compiled kernels are kept on disk; where they can't be, every worker compiles them anew."""
    import numba

    from recbatch import rec

    given: str = getattr(numba.config, "CACHE_DIR", "")
    beside = Path(rec.__file__).parent
    places = [Path(given)] if given else [beside, Path.home() / ".cache" / "numba"]
    usable = [place for place in places if os.access(_existing(place), os.W_OK)]
    if usable:
        yield ok("kernels", f"numba {numba.__version__}, kept in {usable[0]}")
    else:
        text = f"{' and '.join(map(str, places))} can't be written, so kernels are compiled at every start"
        yield warning("kernels", text, "Name a folder that can be written by NUMBA_CACHE_DIR.")


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def models() -> Iterator[Check]:
    """Every model is whole; the default ones code a picture and get it back."""
    from recbatch.api.zoo import model, model_names, verify_model
    from recbatch.codec.types import DEFAULT_MODELS

    names = model_names()
    defaults = {name for name in DEFAULT_MODELS.values() if name}
    for name in sorted(defaults - set(names)):
        yield problem("models", f"{name} is not among the package's files", "Install recbatch again.")
    for name in names:
        try:
            known = model(name)
        except Exception as error:
            yield of_error("models", error, remedy="Install recbatch again.")
            continue
        text = f"{name}, digest {known.digest[:16]}"
        if name not in defaults:
            yield ok("models", text)
            continue
        check = verify_model(name)
        if check.problem:
            yield problem(
                "models", f"{text}: {check.problem}", "Install recbatch again; if it stays so, report it."
            )
        else:
            back = "every pixel comes back" if check.psnr is None else f"PSNR {check.psnr:.1f} dB"
            yield ok("models", f"{text}, codes a test picture: {back}")


def exactness() -> Iterator[Check]:
    """Which ways of computing convolutions this process has found exact; after the models have been tried."""
    from recbatch.models.exact import ladder_report

    trials = ladder_report()
    slow = [trial for trial in trials if trial.failures]
    rungs = Counter((trial.device, trial.rung) for trial in trials)
    text = ", ".join(
        f"{rung} on {device} for {count} shapes" for (device, rung), count in sorted(rungs.items())
    )
    if not slow:
        yield ok("exactness", f"convolutions are exact: {text or 'none was tried'}")
        return
    text += f"; e.g. {list(slow[0].weight_shape)}: {slow[0].failures[0]}"
    yield warning(
        "exactness",
        f"exact, but by slower ways: {text}",
        "Remove fast-math settings and variables of oneDNN, MKL and CUDA; results are right as it is.",
    )
