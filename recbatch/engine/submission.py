"""Jobs on a Ray cluster, through its job server: submitted, watched, stopped.

The job server is spoken to over HTTP alone; nothing is pickled, and no Ray starts on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

from recbatch.engine import head, ray_local
from recbatch.engine.cluster_errors import (
    ClusterUnreachable,
    HeadTakesNoJobs,
    JobDidNotStart,
    JobForgotten,
    JobKeepsWaiting,
    SubmissionFailed,
    UnknownJob,
)
from recbatch.engine.orders import OURS, JobState, Order, Submitted, attempt_of, state_of
from recbatch.engine.package import write_package
from recbatch.engine.scratch import scratch

STOP_WAIT_S = 60  # between SIGTERM and SIGKILL; Ray's 3 s are too few to commit what is finished
POLL_S = 0.5
YOUNG_S = 120.0  # a head that has just started answers, but has no agent yet that could take a job
AWAY_S = 60.0  # that a head may not answer while its job is waited for
TELL_AWAY_S = 3.0
QUEUED_S = 5.0
NEVER_RAN = (
    "RUNTIME_ENV_SETUP_FAILURE",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
    "JOB_ENTRYPOINT_COMMAND_START_ERROR",
)
TELL_AFTER_S = 15.0  # of a wait before it is spoken of, and between two sentences about it
T = TypeVar("T")


class Cluster:
    """One cluster's job server.

    Args:
        address: http(s)://host:port; by default RAY_API_SERVER_ADDRESS, or RAY_ADDRESS where it is of this form.
        allow_version_skew: go on with another Ray than this machine's.

    Raises:
        ClusterAddressMissing, ClusterAddressUnusable, ClusterUnreachable, ClusterNeedsToken, ClusterRefusesToken,
        RayVersionDiffers, PythonTooOld.
    """

    def __init__(self, address: str | None = None, *, allow_version_skew: bool = False) -> None:
        self.address = head.address_of(address, os.environ)
        self._token, self._token_place = head.find_token(os.environ)
        self.versions = head.check(
            self.address, self._token, self._token_place, allow_version_skew=allow_version_skew
        )
        ray_local.prepare(local=False)
        self._client = self._make_client()

    def submit(self, order: Order, *, tell: Callable[[str], None] = lambda sentence: None) -> Submitted:
        """Start the order's next attempt, or attach to the one that is under way.

        ``tell`` is called with a sentence where the head can't take a job yet.
        """
        while True:
            attempts = self.attempts(order.name)
            if attempts and not attempts[-1].over:
                theirs = attempts[-1].order
                return Submitted(
                    job=attempts[-1], attached=True, differs=order.differences(theirs) if theirs else ()
                )
            number = 1 + (attempt_of(attempts[-1].id, order.name) or 0 if attempts else 0)
            submitted = self._start(order, f"{order.name}-{number}", tell)
            if submitted is not None:
                return submitted

    def resume(self, job: str, *, tell: Callable[[str], None] = lambda sentence: None) -> Submitted:
        """The same command again, with this machine's recbatch; attaches where it still runs."""
        state = self.job(job)
        if not state.over:
            return Submitted(job=state, attached=True)
        order = state.order or Order(
            name=re.sub(r"-\d+$", "", state.id), command=tuple(shlex.split(state.command)), code="image"
        )
        return self.submit(order, tell=tell)

    def jobs(self) -> list[JobState]:
        """All submitted jobs that the cluster remembers, newest first."""
        found = [details for details in self._call(self._client.list_jobs) if details.submission_id]
        states = [state_of(details) for details in found]
        return sorted(states, key=lambda state: (state.started or 0, state.id), reverse=True)

    def attempts(self, name: str) -> list[JobState]:
        """Jobs of this name, the newest last."""
        numbered = [(number, state) for state in self.jobs() if (number := attempt_of(state.id, name))]
        return [state for _, state in sorted(numbered, key=lambda pair: pair[0])]

    def job(self, job: str) -> JobState:
        """By its id, or by the name of its attempts: then the newest one. Raises UnknownJob."""
        try:
            return state_of(self._call(lambda: self._client.get_job_info(job), job=job))
        except UnknownJob:
            attempts = self.attempts(job)
            if not attempts:
                raise
            return attempts[-1]

    def stop(self, job: str, *, wait_s: float = STOP_WAIT_S + 15) -> JobState:
        """Ask a job to commit what is finished and to end; returns when it has, or when the wait is over.

        Ray does not take a job out of its queue: one that waits for its place is told to end once it has started.
        """
        state = self.job(job)
        if state.over:
            return state
        self._call(lambda: self._client.stop_job(state.id), job=state.id)
        deadline = time.monotonic() + (min(wait_s, QUEUED_S) if state.status == "PENDING" else wait_s)
        while not (state := self.job(state.id)).over and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return state

    def logs(self, job: str) -> str:
        """What the job's driver has printed so far."""
        state = self.job(job)
        return str(self._call(lambda: self._client.get_job_logs(state.id), job=state.id))

    def follow(self, job: str) -> Iterator[str]:
        """What the job's driver prints, piece by piece, from its beginning to its end.

        Raises ClusterUnreachable where the log breaks off before that.
        """
        state = self.job(job)
        if state.over:  # following takes seconds to find that out
            yield str(self._call(lambda: self._client.get_job_logs(state.id), job=state.id))
            return
        lines = self._client.tail_job_logs(state.id)
        loop = asyncio.new_event_loop()
        try:
            while True:
                try:
                    piece: str = self._call(lambda: loop.run_until_complete(anext(lines)), job=state.id)
                except StopAsyncIteration:
                    break
                yield piece
            self.job(state.id)  # a head that ends in good order ends its logs so, too
        finally:
            loop.run_until_complete(lines.aclose())
            loop.close()

    def wait(
        self,
        job: str,
        *,
        on_log: Callable[[str], None] | None = None,
        tell: Callable[[str], None] = lambda sentence: None,
        pending_s: float | None = None,
    ) -> JobState:
        """Wait for the job's end.

        Args:
            on_log: called with what the driver prints.
            tell: called with a sentence now and then while the job waits for its place.
            pending_s: give up after so many seconds of that; None waits for ever.

        Raises:
            JobKeepsWaiting, JobDidNotStart, JobForgotten, UnknownJob, ClusterUnreachable.
        """
        state = self._wait_for_start(self.job(job), tell, pending_s)
        if on_log is not None and state.status != "PENDING":
            try:
                for piece in self.follow(state.id):
                    on_log(piece)
            except (SubmissionFailed, ClusterUnreachable, UnknownJob):  # it may live: it is asked for below
                tell(
                    f"the log of {state.id} broke off; while the head runs, 'recbatch jobs logs {state.id}' has it all"
                )
        while not (state := self._ask(state, tell)).over:
            time.sleep(POLL_S)
        if state.status == "FAILED" and state.driver_exit is None and state.error_type in NEVER_RAN:
            options = state.order.options if state.order else ""
            raise JobDidNotStart(state.id, head.cause(state.message), options)
        return state

    # --- inside

    def _ask(self, state: JobState, tell: Callable[[str], None]) -> JobState:
        """How the job is now; a network may be away for a while in the hours of a wait."""
        since, told = time.monotonic(), False
        while True:
            try:
                return self.job(state.id)
            except UnknownJob:  # it was there
                raise JobForgotten(state.id, self.address, state.archive) from None
            except ClusterUnreachable as error:
                away_s = time.monotonic() - since
                if away_s > AWAY_S:
                    raise ClusterUnreachable(error.address, error.problem, state.id, state.archive) from None
                if away_s > TELL_AWAY_S and not told:
                    told = True
                    tell(f"the head at {self.address} does not answer; it is asked again for {AWAY_S:.0f} s")
                time.sleep(POLL_S)

    def _wait_for_start(
        self, state: JobState, tell: Callable[[str], None], pending_s: float | None
    ) -> JobState:
        since = told = time.monotonic()
        while state.status == "PENDING":
            now = time.monotonic()
            if pending_s is not None and now - since >= pending_s:
                raise JobKeepsWaiting(state.id, round(now - since), self._why_pending(state))
            if now - told >= TELL_AFTER_S:
                told = now
                tell(f"job {state.id} waits: {self._why_pending(state)}")
            time.sleep(POLL_S)
            state = self._ask(state, tell)
        return state

    def _why_pending(self, state: JobState) -> str:
        """What it asks for beside what there is, as far as the cluster says."""
        cpus = state.order.cpus if state.order else 0
        if cpus:
            there = head.resources(self.address, self._token).get("CPU")
            if there is not None and there < cpus:
                return f"its driver asks for {cpus:g} CPUs, and the cluster has {there:g}"
            return f"its driver asks for {cpus:g} CPUs, and so many are not free"
        return head.one_line(state.message) or "the cluster does not say why"

    def _start(self, order: Order, job: str, tell: Callable[[str], None]) -> Submitted | None:
        """None where another one was quicker."""
        environment: dict[str, Any] = {
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **order.env}
        }
        if order.pip:
            environment["pip"] = list(order.pip)
        if order.image:
            environment["image_uri"] = order.image
        size = 0
        with scratch() as folder:
            if order.code == "package":
                package = folder / "recbatch.zip"
                size = write_package(package)
                environment["working_dir"] = str(package)
            try:
                self._send(order, job, environment, tell)
            except head.JobExists:
                return None
        return Submitted(job=self.job(job), attached=False, package_bytes=size)

    def _send(
        self, order: Order, job: str, environment: Mapping[str, Any], tell: Callable[[str], None]
    ) -> None:
        began, told = time.monotonic(), False
        while True:
            try:
                self._call(
                    lambda: self._client.submit_job(
                        entrypoint=shlex.join(order.command),
                        submission_id=job,
                        runtime_env=dict(environment),  # its paths are replaced in place
                        metadata={OURS: order.to_json()},
                        entrypoint_num_cpus=order.cpus or None,
                    )
                )
                return
            except SubmissionFailed as error:
                if "No available agent" not in error.problem:
                    raise
                if (waited_s := time.monotonic() - began) > YOUNG_S:
                    raise HeadTakesNoJobs(self.address, round(waited_s)) from None
                if not told:
                    told = True
                    tell(f"the head has no agent yet that starts jobs; it has {YOUNG_S:.0f} s for that")
                time.sleep(POLL_S)

    def _make_client(self) -> Any:
        module = import_module("ray.job_submission")
        for name in ("dashboard_sdk", "job.sdk"):  # they tell of every request
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else None
        variable = "RAY_API_SERVER_ADDRESS"  # stands above the argument, whoever set it
        before = os.environ.get(variable)
        os.environ[variable] = self.address
        try:
            return self._call(lambda: module.JobSubmissionClient(self.address, headers=headers))
        finally:
            if before is None:
                del os.environ[variable]
            else:
                os.environ[variable] = before

    def _call(self, call: Callable[[], T], *, job: str = "") -> T:
        try:
            return call()
        except (StopAsyncIteration, KeyboardInterrupt):
            raise
        except Exception as error:
            raise head.translated(
                error, self.address, token=self._token, place=self._token_place, job=job
            ) from None
