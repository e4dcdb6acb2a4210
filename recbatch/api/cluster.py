"""Jobs on a Ray cluster: submit a command, watch it, stop it, take it up again.

job = cluster.submit(["compress", "s3://photos", "s3://archive"], archive="s3://archive", address="http://head:8265")
cluster.wait(job.job.id, address="http://head:8265").exit_status
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from recbatch.api.common import Location

if TYPE_CHECKING:
    from recbatch.engine.orders import JobState, Submitted
    from recbatch.engine.runs import RunStatus
    from recbatch.engine.submission import Cluster

Code: TypeAlias = Literal["package", "image"]

SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|ACCESS_?KEY|API_?KEY|(^|_)KEY$|(^|_)AUTH$|SIGNATURE",
    re.IGNORECASE,
)
PLACE_OF_A_SECRET = re.compile(r"_(FILE|PATH|DIR|URI)$", re.IGNORECASE)


def connect(address: str | None = None, *, allow_version_skew: bool = False) -> Cluster:
    """The cluster at ``address``, http://HEAD:8265; by default that of RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises ClusterAddressMissing, ClusterAddressUnusable, ClusterUnreachable, ClusterNeedsToken,
    ClusterRefusesToken, RayVersionDiffers, PythonTooOld.
    """
    from recbatch.engine.submission import Cluster

    return Cluster(address, allow_version_skew=allow_version_skew)


def submit(
    words: Sequence[str],
    *,
    archive: Location = "",
    source: Location = "",
    paths: Sequence[str] = (),
    same: Mapping[str, Any] | None = None,
    address: str | None = None,
    name: str | None = None,
    code: Code | None = None,
    image: str | None = None,
    pip: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    shared_paths: bool = False,
    driver_cpus: float = 0,
    allow_version_skew: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Submitted:
    """Have a cluster run ``recbatch WORDS``; attach to the same work where it runs already.

    Args:
        words: a command line of recbatch, without the program.
        archive: the archive that it works on, for ``jobs status``.
        source: that it reads, if it reads one; with ``shared_paths`` a local one is looked for here.
        paths: what in ``words`` names files; these must be URLs, or ``shared_paths``.
        same: what makes two calls the same work; ``words`` by default.
        name: of the job, instead of one made from ``same``: letters, digits and ``._-``.
        code: "package", the default: the job brings this recbatch along; "image": its nodes have recbatch, as with
            ``image``.
        image: of a container that driver and workers run in; it must hold recbatch.
        pip: packages for the nodes to install first, which takes a while and needs an index that they reach.
        env: variables of driver and workers; never secrets.
        shared_paths: all nodes see the paths of this machine.
        driver_cpus: that the driver occupies; 0 starts it anywhere at once.
        allow_version_skew: go on with another version of Ray than the cluster's.
        tell: called with a sentence where the head has only just started and the job has to wait for it.

    Returns:
        The job, whether it ran already, and how many bytes of code it brought.

    Raises:
        SecretOnTheWay, LocalPathOnCluster, SourceNotFound, BadJobName, ClashingJobOptions, PackageTooLarge,
        HeadTakesNoJobs, SubmissionFailed, and those of ``connect``.
    """
    from recbatch.engine.cluster_errors import (
        BadJobName,
        ClashingJobOptions,
        ClusterAddressMissing,
        LocalPathOnCluster,
    )
    from recbatch.engine.errors import SourceNotFound
    from recbatch.engine.orders import Order

    env = dict(env or {})
    if image and pip:
        raise ClashingJobOptions("--image and --pip", "Ray can't install packages into a container")
    if image and code == "package":
        raise ClashingJobOptions("--image and --code package", "a container has a recbatch of its own")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", name):
        raise BadJobName(name)
    refuse_secrets(words, env)
    for path in paths:
        if "://" not in path and not shared_paths:  # also at localhost, where a tunnel may begin
            raise LocalPathOnCluster(path)
    source = os.fspath(source)
    if source and "://" not in source and not os.path.lexists(source):
        raise SourceNotFound(source)
    order = Order(
        name=name or job_name(words[0], same if same is not None else list(words)),
        command=("python", "-m", "recbatch", *words),
        archive=os.fspath(archive),
        code=code or ("image" if image else "package"),
        image=image or "",
        pip=tuple(pip),
        env=env,
        cpus=driver_cpus,
    )
    try:
        cluster = connect(address, allow_version_skew=allow_version_skew)
    except ClusterAddressMissing:
        raise ClusterAddressMissing("without 'submit' the same command runs on this machine") from None
    return cluster.submit(order, tell=tell)


def wait(
    job: str,
    *,
    address: str | None = None,
    on_log: Callable[[str], None] | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    pending_s: float | None = None,
    allow_version_skew: bool = False,
) -> JobState:
    """Wait for a job's end; ``exit_status`` of what it returns is the job's own.

    Args:
        on_log: called with what the job prints.
        tell: called with a sentence now and then while the job waits for its place.
        pending_s: seconds after which that wait ends with JobKeepsWaiting.
    """
    with asking_for(job):
        cluster = connect(address, allow_version_skew=allow_version_skew)
        return cluster.wait(job, on_log=on_log, tell=tell, pending_s=pending_s)


def jobs(*, address: str | None = None) -> list[JobState]:
    """The jobs that the cluster remembers, newest first."""
    with asking_for("a job"):
        return connect(address, allow_version_skew=True).jobs()


def job(job: str, *, address: str | None = None) -> JobState:
    """One job by its id, or the newest attempt of this name. Raises UnknownJob."""
    with asking_for(job):
        return connect(address, allow_version_skew=True).job(job)


def logs(job: str, *, address: str | None = None, follow: bool = False) -> Iterator[str]:
    """What a job has printed; with ``follow`` up to its end."""
    with asking_for(job):
        cluster = connect(address, allow_version_skew=True)
        if follow:
            yield from cluster.follow(job)
        else:
            yield cluster.logs(job)


def stop(job: str, *, address: str | None = None) -> JobState:
    """Ask a job to commit what is finished and to end, and wait for that."""
    with asking_for(job):
        return connect(address, allow_version_skew=True).stop(job)


def resume(
    job: str,
    *,
    address: str | None = None,
    allow_version_skew: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Submitted:
    """Submit a job's command again, as its next attempt, with this machine's recbatch."""
    with asking_for(job):
        return connect(address, allow_version_skew=allow_version_skew).resume(job, tell=tell)


def runs(archive: Location, *, limit: int | None = None) -> list[RunStatus]:
    """Runs into an archive by its own ledger, newest first; it needs no cluster."""
    from recbatch.archive import Archive
    from recbatch.engine.runs import read_runs

    return read_runs(Archive.open(os.fspath(archive)), limit)


def runs_of(job: JobState) -> list[RunStatus]:
    """The runs of a job into its archive, newest first, by the archive's ledger.

    A run that ended with its job and could not say so any more has the state ``lost``. Raises as ``runs`` does.
    """
    from recbatch.engine.runs import ACTIVE

    found = [run for run in runs(job.archive) if run.submission == job.id] if job.archive else []
    return [replace(run, state="lost") if job.over and run.state in ACTIVE else run for run in found]


@contextmanager
def asking_for(job: str) -> Iterator[None]:
    """What can't be asked of a cluster is told with where else it may stand."""
    from recbatch.engine.cluster_errors import LEDGER, ClusterAddressMissing, ClusterUnreachable

    try:
        yield
    except ClusterAddressMissing:
        raise ClusterAddressMissing(f"{LEDGER} needs none: it reads what the archive knows") from None
    except ClusterUnreachable as error:
        raise ClusterUnreachable(error.address, error.problem, job, error.archive) from None


def job_name(command: str, same: Any) -> str:
    """The same for the same work, whoever submits it: ``recbatch-compress-0123456789abcdef``."""
    text = json.dumps(same, sort_keys=True, default=str, ensure_ascii=True)
    return f"recbatch-{command}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def refuse_secrets(words: Sequence[str], env: Mapping[str, str]) -> None:
    """Raises SecretOnTheWay."""
    from recbatch.engine.cluster_errors import SecretOnTheWay

    for variable, value in env.items():
        if SECRET_NAME.search(variable) and not PLACE_OF_A_SECRET.search(variable):
            raise SecretOnTheWay(f"The variable {variable}")
        if has_password(value):
            raise SecretOnTheWay(f"The password in the URL of {variable}")
    for word in words:
        if has_password(word):
            raise SecretOnTheWay(f"The password in the URL of {urlsplit(word).hostname}")


def has_password(text: str) -> bool:
    try:
        return "://" in text and bool(urlsplit(text).password)
    except ValueError:
        return False
