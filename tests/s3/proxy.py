"""Between a client and its S3 server: forwards each request, or spoils it as its plan says.

A plan sees a request and returns a fault's name, or None. ``Seeded`` spoils a share of all requests, the same ones for
the same seed whatever the order they come in; ``Times`` spoils the first few that match. Both give in at last, so
that whoever tries again gets through.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("slow_down", "internal", "reset", "cut", "stall", "lost")
"""503 SlowDown; 500; the connection is reset at once; half of the answer, then a reset; no answer at all, ever; the
request is done and its answer lost."""

CODES = {"slow_down": (503, "SlowDown"), "internal": (500, "InternalError")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str  # as sent, without the query
    query: str
    number: int  # of this very request so far, from 0: how often it was tried before


Plan = Callable[[Request], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """A share of all requests, drawn by their own text; the same request is spoilt twice at most."""

    seed: int
    share: float
    kinds: Sequence[str] = FAULTS
    matching: Callable[[Request], bool] = lambda request: True

    def __call__(self, request: Request) -> str | None:
        if request.number >= 2 or not self.matching(request):
            return None
        text = f"{self.seed} {request.method} {request.path}?{request.query} {request.number}"
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        if draw / 2**64 >= self.share:
            return None
        return self.kinds[draw % len(self.kinds)]


class Times:
    """The first ``count`` requests that match."""

    def __init__(self, fault: str, count: int, matching: Callable[[Request], bool]) -> None:
        self.fault, self.left, self.matching = fault, count, matching
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> str | None:
        with self._lock:
            if self.left <= 0 or not self.matching(request):
                return None
            self.left -= 1
            return self.fault


@dataclass(slots=True, kw_only=True)
class Proxy:
    """A running proxy. Set ``plan`` at any time; ``log`` holds (method, path, query, fault or status)."""

    url: str
    plan: Plan | None = None
    stalls_s: float = 30.0
    log: list[tuple[str, str, str, str]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    ending: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def spoilt(self, fault: str | None = None) -> int:
        """How many requests were spoilt, by this fault or by any."""
        with self.lock:
            return sum(what == fault if fault else what in FAULTS for *_, what in self.log)

    def choose(self, method: str, target: str) -> str | None:
        parts = urlsplit(target)
        with self.lock:
            number = self.seen[f"{method} {target}"]
            self.seen[f"{method} {target}"] += 1
        request = Request(method=method, path=parts.path, query=parts.query, number=number)
        return self.plan(request) if self.plan else None

    def note(self, method: str, target: str, what: str) -> None:
        parts = urlsplit(target)
        with self.lock:
            self.log.append((method, parts.path, parts.query, what))


def _handler(proxy: Proxy, upstream: str) -> type[BaseHTTPRequestHandler]:
    host = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.choose(self.command, self.path)
            if fault is not None:
                proxy.note(self.command, self.path, fault)
            if fault in CODES:
                self.refuse(*CODES[fault])
            elif fault == "reset":
                self.reset()
            elif fault == "stall":
                proxy.ending.wait(proxy.stalls_s)
                self.reset()
            else:
                self.pass_on(body, fault)

        def pass_on(self, body: bytes, fault: str | None) -> None:
            connection = http.client.HTTPConnection(host, timeout=60)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "expect")}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
            except OSError:  # the server is away: so are we
                proxy.note(self.command, self.path, "down")
                return self.reset()
            finally:
                connection.close()
            if fault == "lost":
                return self.reset()
            if fault is None:
                proxy.note(self.command, self.path, str(answer.status))
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            if size is not None and answer.status != 204:
                self.send_header("Content-Length", size)
            self.end_headers()
            if fault == "cut":
                self.wfile.write(data[: len(data) // 2])
                return self.reset()
            self.wfile.write(data)

        def refuse(self, status: int, code: str) -> None:
            data = f"<Error><Code>{code}</Code><Message>As planned.</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def reset(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are no news here."""

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):  # closed already, where a fault did it
            super().shutdown_request(request)


@contextlib.contextmanager
def standing_before(upstream: str, plan: Plan | None = None) -> Iterator[Proxy]:
    """A proxy before a server; its ``url`` is the endpoint to name in its stead."""
    proxy = Proxy(url="", plan=plan)
    with _Server(("127.0.0.1", 0), _handler(proxy, upstream)) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ending.set()
            server.shutdown()
            thread.join(10)
