"""A real S3 server on loopback: SeaweedFS with two users, one of whom may only read.

It checks signatures and permissions, and makes no bucket on its own. ``Seaweed.start`` takes its ports fresh each time.
For trying things by hand: ``python tests/s3/seaweed.py FOLDER [BUCKET]`` runs one until Ctrl-C, with a bucket if one
is named, and prints the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

WEED = Path(sys.executable).with_name("weed")
START_S = 60.0  # 4 s on a quiet machine, 18 s were seen under load


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    access_key: str
    secret_key: str


ADMIN = User(access_key="admin-key", secret_key="admin-secret")
READER = User(access_key="reader-key", secret_key="reader-secret")
OTHER = User(access_key="other-key", secret_key="other-secret")  # may do all, until ``revoke`` takes its key


def free_ports(count: int) -> list[int]:
    """Ports that are free now; all below 55,000, since ``weed`` adds 10,000 to those it is not told."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass(slots=True, kw_only=True)
class Seaweed:
    """One server, its files in ``folder``. ``stop`` and ``start`` again: the same port, the same objects."""

    folder: Path
    port: int = 0
    process: psutil.Popen | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, user: User = ADMIN, *, url: str | None = None) -> dict[str, str]:
        """The AWS_* variables for a user; ``url`` in place of the server's own, where a proxy stands before it."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": user.access_key,
            "AWS_SECRET_ACCESS_KEY": user.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "s3.json"
        if not config.exists():
            config.write_text(json.dumps({"identities": identities()}))
        # one volume for a new bucket in place of seven: making them is most of what a test would wait for
        (self.folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
        names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3.grpc", "s3")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.port = self.port or ports["s3"]
        flags = {
            **{"ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": str(self.folder), "s3": "true"},
            **{f"{part}.port": ports[part] for part in ("master", "volume", "filer")},
            **{f"{part}.port.grpc": ports[f"{part}.grpc"] for part in ("master", "volume", "filer", "s3")},
            **{"s3.port": self.port, "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": str(config)},
            **{"s3.autoCreateBucket": "false", "volume.max": 2000, "master.volumeSizeLimitMB": 512},
            **{"master.telemetry": "false", "volume.minFreeSpace": "1MiB"},
        }
        with open(self.folder / "log.txt", "ab") as log:
            self.process = psutil.Popen(
                [str(WEED), "-logtostderr=true", "server", *(f"-{k}={v}" for k, v in flags.items())],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )
        self._wait(time.monotonic() + START_S)

    def _wait(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
            except urllib.error.HTTPError as error:
                if error.code == 403:  # it asks who we are: ready
                    return
            except OSError:
                pass
            time.sleep(0.1)
        tail = (self.folder / "log.txt").read_text(errors="replace")[-2000:]
        self.stop()
        raise RuntimeError(f"weed did not start:\n{tail}")

    def stop(self, *, kill: bool = True) -> None:
        """End the server and wait until it is gone: half dead, it answers 500."""
        if self.process is None:
            return
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(60)
        self.process = None


def identities() -> list[dict[str, object]]:
    everything = ["Admin", "Read", "List", "Tagging", "Write"]
    users = ((ADMIN, everything), (OTHER, everything), (READER, ["Read", "List"]))
    return [
        {
            "name": user.access_key,
            "credentials": [{"accessKey": user.access_key, "secretKey": user.secret_key}],
            "actions": actions,
        }
        for user, actions in users
    ]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Seaweed]:
    server = Seaweed(folder=folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def make_bucket(server: Seaweed, bucket: str) -> None:
    """Unless it is there already."""
    from recbatch import s3  # not above: a server alone needs nothing of ours

    os.environ.update(server.environment())
    client = s3.account().client()
    if bucket not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with running(Path(sys.argv[1])) as server:
        for bucket in sys.argv[2:]:
            make_bucket(server, bucket)
        sys.stdout.writelines(f"export {name}={value}\n" for name, value in server.environment().items())
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
