"""The head of a cluster as seen from here: its address, its token, its versions, and what its refusals mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recbatch.engine.cluster_errors import (
    TOKEN_PLACES,
    ClusterAddressMissing,
    ClusterAddressUnusable,
    ClusterNeedsToken,
    ClusterRefusesToken,
    ClusterUnreachable,
    PackageTooLarge,
    PythonTooOld,
    RayVersionDiffers,
    SubmissionFailed,
    UnknownJob,
)
from recbatch.engine.package import LIMIT_BYTES
from recbatch.errors import RecbatchError

TIMEOUT_S = (5.0, 30.0)  # to connect, and to wait for an answer
OLDEST_PYTHON = "3.11"


class JobExists(Exception):
    """Another submission took the same id at the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    ray: str
    python: str = ""


def address_of(given: str | None, environment: Mapping[str, str]) -> str:
    """Of the job server, without a slash at its end. Raises ClusterAddressMissing, ClusterAddressUnusable."""
    address = given or environment.get("RAY_API_SERVER_ADDRESS")
    if not address and environment.get("RAY_ADDRESS", "").startswith(("http://", "https://")):
        address = environment["RAY_ADDRESS"]
    if not address:
        raise ClusterAddressMissing
    if "@" in address:  # it would stand in messages, in job files and in this machine's list of processes
        shown = address.rpartition("@")[2]
        raise ClusterAddressUnusable(
            shown,
            "comes with a user or a password before it",
            f"Leave these out, and put the cluster's token into {TOKEN_PLACES}",
        )
    if "://" not in address:
        host, _, port = address.partition(":")
        port = "8265" if port in ("", "6379", "10001") else port  # Ray's other ports are not this one
        raise ClusterAddressUnusable(address, "has no scheme", f"Write http://{host}:{port}, or https://")
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # raises for what is no number
    except ValueError:
        fine = False
    if not fine:
        raise ClusterAddressUnusable(
            address, "is not one of a job server", "Write http://HEAD:8265, the address of the Ray dashboard"
        )
    return address.rstrip("/")


def find_token(environment: Mapping[str, str]) -> tuple[str, str]:
    """The token and where it was found, in the order in which Ray looks.

    Where there is none it is empty, and the second word says what is wrong with a file that was named, if one was.
    """
    if environment.get("RAY_AUTH_MODE", "token").lower() != "token":
        return "", ""
    if token := environment.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    problem = "is empty"
    try:
        if token := path.read_text(encoding="utf-8").strip():
            return token, str(path)
    except OSError as error:
        problem = f"can't be read ({(error.strerror or type(error).__name__).lower()})"
    except UnicodeDecodeError:
        problem = "holds no text"
    return "", f"the file that RAY_AUTH_TOKEN_PATH names, {path}, {problem}" if named else ""


def own_ray_version() -> str:
    return version("ray")


def check(address: str, token: str, place: str, *, allow_version_skew: bool) -> Versions:
    """Ask the head who it is, with time limits, which Ray's own client does not have."""
    answer = ask(address, "/api/version", token, place)
    ray = str(answer.get("ray_version", "")) if isinstance(answer, dict) else ""
    if not ray:
        raise ClusterUnreachable(address, "what answers there is not Ray's dashboard")
    here = own_ray_version()
    if minor(ray) != minor(here) and not allow_version_skew:
        raise RayVersionDiffers(address, here, ray)
    python = str(metadata(address, token).get("pythonVersion", ""))
    # only source code and words cross over, so another Python is fine as long as it can run them
    if python and minor(python) < minor(OLDEST_PYTHON):
        raise PythonTooOld(address, OLDEST_PYTHON, python)
    return Versions(ray=ray, python=python)


def minor(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def ask(address: str, path: str, token: str, place: str) -> Any:
    """The answer to a GET, read as JSON. Raises what fits."""
    requests = import_module("requests")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        response = requests.get(address + path, headers=headers, timeout=TIMEOUT_S)
    except requests.exceptions.RequestException as error:
        raise ClusterUnreachable(address, reason(error)) from None
    if response.status_code in (401, 403):
        raise refused(address, token, place)
    if response.status_code != 200:
        raise ClusterUnreachable(
            address,
            f"it answers {response.status_code} when asked for Ray's version, as no Ray dashboard does",
        )
    try:
        return response.json()
    except ValueError:
        raise ClusterUnreachable(address, "what answers there is not Ray's dashboard") from None


def metadata(address: str, token: str) -> dict[str, Any]:
    """What the head says of itself; empty where it does not."""
    return _data(address, "/api/v0/cluster_metadata", token)


def resources(address: str, token: str) -> dict[str, float]:
    """All that the cluster has by name; empty where the head does not say."""
    status = _data(address, "/api/cluster_status", token).get("clusterStatus")
    try:
        usage = status["loadMetricsReport"]["usage"]  # type: ignore[index]
        return {str(name): float(total) for name, (_, total) in usage.items()}
    except (KeyError, TypeError, ValueError):
        return {}


def _data(address: str, path: str, token: str) -> dict[str, Any]:
    try:
        data = ask(address, path, token, "").get("data")
    except (RecbatchError, AttributeError):
        return {}
    return data if isinstance(data, dict) else {}


def refused(address: str, token: str, place: str) -> RecbatchError:
    return ClusterRefusesToken(address, place) if token else ClusterNeedsToken(address, place)


def translated(error: Exception, address: str, *, token: str, place: str, job: str = "") -> Exception:
    """Ours for an exception of Ray's client, which has one class and a text for most of them."""
    if isinstance(error, RecbatchError):
        return error
    text = str(error)
    if type(error).__name__ == "AuthenticationError":
        return refused(address, token, place)
    if "already exists" in text:
        return JobExists(text)
    if "status code 413" in text:
        return PackageTooLarge(LIMIT_BYTES, LIMIT_BYTES, "not known here")
    if job and ("does not exist" in text or "404" in text):
        return UnknownJob(job, address)
    if (
        "websocket" in text.lower()
    ):  # of a log that is followed: the head has gone, or something on the way to it
        return ClusterUnreachable(address, "it broke the connection off", job)
    if isinstance(error, OSError) or type(error).__module__.startswith(("requests", "aiohttp")):
        return ClusterUnreachable(address, reason(error), job)
    return SubmissionFailed(address, one_line(text) or type(error).__name__)


def reason(error: Exception) -> str:
    """Of a failed connection, without the layers that it came through."""
    text = str(error)
    if text.startswith("Failed to connect to Ray at address"):  # which is in our own sentence already
        return "nothing answers there"
    for mark in ("Connection refused", "timed out", "Name or service not known", "No route to host"):
        if mark.lower() in text.lower():
            return mark[0].lower() + mark[1:]
    return one_line(text)[:160] or type(error).__name__


def cause(text: str, limit: int = 300) -> str:
    """Of a message of many lines that wraps others, the last one: there it says what it was."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [" ".join(line.split()) for line in re.split(r"\\n|\n", text) if line.strip()]
    return lines[-1][:limit].rstrip(". ") if lines else ""


def one_line(text: str, limit: int = 200) -> str:
    """The sentence that matters: of a traceback the last line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
    lines = [line.strip() for line in re.split(r"\\n|\n", text) if line.strip()]
    if not lines:
        return ""
    line = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return line[:limit].rstrip(". ")
