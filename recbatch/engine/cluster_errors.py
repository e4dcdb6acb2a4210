"""What can go wrong between this machine and a Ray cluster.

UsageError                    exit 2
+-- ClusterAddressMissing     no cluster is named
+-- ClusterAddressUnusable    the address is not one of this kind
+-- SecretOnTheWay            a secret would be shown to whoever sees the job
+-- LocalPathOnCluster        the cluster's nodes don't see this path
+-- BadJobName                not one that an address can carry
+-- ClashingJobOptions        two options contradict each other
+-- UnknownJob                the cluster has no such job
StoreError                    exit 3
+-- ClusterUnreachable        nothing answers, or not as Ray does
+-- ClusterNeedsToken, ClusterRefusesToken
+-- RayVersionDiffers, PythonTooOld
+-- PackageTooLarge           the code would not pass the limit of Ray's job server
+-- HeadTakesNoJobs           the head answers, but has nothing that would start a job
+-- SubmissionFailed          the job server says no
+-- JobDidNotStart            the job's environment or its driver could not be made
+-- JobKeepsWaiting           the job finds no place to run
+-- JobForgotten              the head was restarted while the job was waited for
+-- RayDidNotStart            a local Ray did not come up
"""

from __future__ import annotations

import shlex

from recbatch.errors import StoreError, UsageError

TOKEN_PLACES = "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token"
LEDGER = "'recbatch jobs status --archive ARCHIVE'"


def ledger(archive: str) -> str:
    """The command that reads an archive's ledger, as a user may copy it."""
    return f"'recbatch jobs status --archive {shlex.quote(archive)}'" if archive else LEDGER


class ClusterAddressMissing(UsageError):
    """A command for a cluster names none."""

    code = "cluster-address-missing"

    def __init__(self, instead: str = "") -> None:
        super().__init__(instead)
        self.instead = instead  # what can be done without one

    def __str__(self) -> str:
        tail = f"; {self.instead}" if self.instead else ""
        return f"No cluster is named. Give --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS to it{tail}."


class ClusterAddressUnusable(UsageError):
    """An address is not of the kind that is needed there."""

    code = "cluster-address-unusable"

    def __init__(self, address: str, problem: str, remedy: str) -> None:
        super().__init__(address, problem, remedy)
        self.address, self.problem, self.remedy = address, problem, remedy

    def __str__(self) -> str:
        return f"The cluster's address '{self.address}' {self.problem}. {self.remedy}."


class SecretOnTheWay(UsageError):
    """A secret would stand in a job's environment or command, where everyone who sees the cluster can read it."""

    code = "secret-on-the-way"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} looks like a secret, and whoever sees the cluster's jobs would read it. "
            "Give it to the nodes themselves: a role of the machine, a Kubernetes secret, or a file with its path in "
            "--env."
        )


class LocalPathOnCluster(UsageError):
    """A path of this machine is named in a job that runs on others."""

    code = "local-path-on-cluster"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"'{self.path}' is a path, and the cluster's nodes may not see it. "
            "Name a URL such as s3://bucket/prefix, or say --shared-paths where every node sees this path."
        )


class ClashingJobOptions(UsageError):
    """Two options of a submission contradict each other."""

    code = "clashing-job-options"

    def __init__(self, options: str, problem: str) -> None:
        super().__init__(options, problem)
        self.options, self.problem = options, problem

    def __str__(self) -> str:
        return f"{self.options}: {self.problem}. Leave one of them out."


class BadJobName(UsageError):
    """A job's name has characters that an address can't carry."""

    code = "bad-job-name"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"'{self.name}' can't be a job's name. Use up to 100 letters, digits and any of . _ -, a letter first."


class UnknownJob(UsageError):
    """The cluster has no job of this id."""

    code = "unknown-job"

    def __init__(self, job: str, address: str) -> None:
        super().__init__(job, address)
        self.job, self.address = job, address

    def __str__(self) -> str:
        return (
            f"There is no job '{self.job}' at {self.address}; a cluster forgets its jobs when its head ends. "
            "See 'recbatch jobs ls', or read the archive's own ledger with 'recbatch jobs status --archive URL'."
        )


class ClusterUnreachable(StoreError):
    """Nothing answers at a cluster's address, or not as Ray does."""

    code = "cluster-unreachable"

    def __init__(self, address: str, problem: str, job: str = "", archive: str = "") -> None:
        super().__init__(address, problem, job, archive)
        self.address, self.problem = address, problem
        self.job, self.archive = (
            job,
            archive,
        )  # that was asked for, if one was; and its archive, if that is known

    def __str__(self) -> str:
        sentence = f"The cluster at {self.address} can't be reached: {self.problem}. "
        if not self.job:
            return f"{sentence}Check that its head runs, and that this port is open from here."
        return (
            f"{sentence}Check that its head runs; if it is gone, {ledger(self.archive)} tells how far {self.job} came, "
            "and the same "
            "command goes on from there once it is submitted again."
        )


class ClusterNeedsToken(StoreError):
    """A cluster asks for a token, and none was found."""

    code = "cluster-needs-token"

    def __init__(self, address: str, problem: str = "") -> None:
        super().__init__(address, problem)
        self.address, self.problem = address, problem

    def __str__(self) -> str:
        return (
            f"The cluster at {self.address} asks for a token, and {self.problem or 'there is none'}. "
            f"Put it into {TOKEN_PLACES}."
        )


class ClusterRefusesToken(StoreError):
    """A cluster refuses the token that it was given."""

    code = "cluster-refuses-token"

    def __init__(self, address: str, place: str) -> None:
        super().__init__(address, place)
        self.address, self.place = address, place

    def __str__(self) -> str:
        return (
            f"The cluster at {self.address} refuses the token from {self.place}. "
            f"Put this cluster's token into {TOKEN_PLACES}."
        )


class RayVersionDiffers(StoreError):
    """This machine and the cluster have different versions of Ray."""

    code = "ray-version-differs"

    def __init__(self, address: str, here: str, there: str) -> None:
        super().__init__(address, here, there)
        self.address, self.here, self.there = address, here, there

    def __str__(self) -> str:
        return (
            f"Ray is {self.here} here and {self.there} at {self.address}. "
            "Install the same major and minor version, or try it with --allow-version-skew."
        )


class PythonTooOld(StoreError):
    """A cluster's Python can't run this recbatch."""

    code = "python-too-old"

    def __init__(self, address: str, needed: str, there: str) -> None:
        super().__init__(address, needed, there)
        self.address, self.needed, self.there = address, needed, there

    def __str__(self) -> str:
        return (
            f"Python is {self.there} at {self.address}, and recbatch needs {self.needed} or newer. "
            "Start the cluster from an image with a newer Python."
        )


class PackageTooLarge(StoreError):
    """The code that a job takes along is larger than Ray's job server accepts."""

    code = "package-too-large"

    def __init__(self, size: int, limit: int, largest: str) -> None:
        super().__init__(size, limit, largest)
        self.size, self.limit, self.largest = size, limit, largest

    def __str__(self) -> str:
        return (
            f"The code is a package of {self.size / 1e6:.0f} MB, and Ray's job server accepts {self.limit / 1e6:.0f}; "
            f"the largest file in it is {self.largest}. Remove what is not needed from the installed package, or use "
            "an image that has recbatch, and --code image."
        )


class HeadTakesNoJobs(StoreError):
    """A cluster's head answers, but the agent that starts its jobs is not there."""

    code = "head-takes-no-jobs"

    def __init__(self, address: str, seconds: int) -> None:
        super().__init__(address, seconds)
        self.address, self.seconds = address, seconds

    def __str__(self) -> str:
        return (
            f"The head at {self.address} answers, but for {self.seconds} s it has had no agent that starts jobs: often "
            "another Ray on its machine has the agent's port, 52365. Start the head with "
            "--dashboard-agent-listen-port=0, or read its dashboard_agent.log."
        )


class SubmissionFailed(StoreError):
    """The cluster's job server answered a request with an error."""

    code = "submission-failed"

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address, self.problem = address, problem

    def __str__(self) -> str:
        return (
            f"The job server at {self.address} answers: {self.problem}. "
            "Mend that, or look into the head's logs, and run the same command again."
        )


class JobDidNotStart(StoreError):
    """A job ended before its command ran."""

    code = "job-did-not-start"

    def __init__(self, job: str, problem: str, options: str = "") -> None:
        super().__init__(job, problem, options)
        self.job, self.problem = job, problem
        self.options = options  # that were given and may be the cause, such as "--pip"

    def __str__(self) -> str:
        return (
            f"Job {self.job} ended before its command ran: {self.problem}. "
            f"Check {f'{self.options}, and ' if self.options else ''}that the nodes have room; then submit it again."
        )


class JobKeepsWaiting(StoreError):
    """A job waits for a place to run, and the wait for it is over."""

    code = "job-keeps-waiting"

    def __init__(self, job: str, seconds: int, problem: str) -> None:
        super().__init__(job, seconds, problem)
        self.job, self.seconds, self.problem = job, seconds, problem

    def __str__(self) -> str:
        return (
            f"Job {self.job} still waits after {self.seconds} s: {self.problem}. "
            "It stays in the queue: make room for it, or have it end once it starts, with "
            f"'recbatch jobs stop {self.job}'."
        )


class JobForgotten(StoreError):
    """A job was waited for, and its head was restarted meanwhile: a new head knows no job of the one before."""

    code = "job-forgotten"

    def __init__(self, job: str, address: str, archive: str = "") -> None:
        super().__init__(job, address, archive)
        self.job, self.address, self.archive = job, address, archive

    def __str__(self) -> str:
        return (
            f"The head at {self.address} was restarted and has forgotten job {self.job}. Submit the same line again: "
            f"it goes on from what is committed, and {ledger(self.archive)} tells how much that is."
        )


class RayDidNotStart(StoreError):
    """Ray did not come up on this machine."""

    code = "ray-did-not-start"

    def __init__(self, attempts: int, problem: str) -> None:
        super().__init__(attempts, problem)
        self.attempts, self.problem = attempts, problem

    def __str__(self) -> str:
        return (
            f"Ray did not start on this machine in {self.attempts} attempts: {self.problem}. "
            "Try again when the machine has less to do, or do without Ray with --executor processes."
        )
