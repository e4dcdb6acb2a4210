"""A real browser without a window, spoken to over its debugging protocol. Named apart, so that tests can import it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_S = 60.0  # a loaded machine takes its time


def find_browser() -> str | None:
    """``RECBATCH_BROWSER``, else a Chromium of the system."""
    named = os.environ.get("RECBATCH_BROWSER")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def running(program: str) -> Iterator[Browser]:
    """The browser, and the end of all its processes."""
    with tempfile.TemporaryDirectory(prefix="recbatch-browser-", ignore_cleanup_errors=True) as folder:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-extensions"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield Browser(address(Path(folder), process))
            finally:
                family = psutil.Process(process.pid).children(recursive=True)
                for member in family:
                    if member.is_running():
                        member.kill()
                process.kill()
                psutil.wait_procs(family, timeout=30)


def address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Where it listens, on loopback."""
    told = folder / "DevToolsActivePort"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the browser ended with {process.returncode}")
        if told.exists() and len(lines := told.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise RuntimeError("the browser did not start")


class Browser:
    def __init__(self, url: str) -> None:
        self._url = url

    def visit(
        self, page: Path, script: str, *, width: int = 1200, height: int = 900, scheme: str = "light"
    ) -> Visit:
        """Open a file, run a script in it, and tell what both gave."""
        return asyncio.run(self._visit(page.as_uri(), script, width, height, scheme))

    async def _visit(self, url: str, script: str, width: int, height: int, scheme: str) -> Visit:
        import aiohttp

        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._url, max_msg_size=0) as socket,
        ):
            tab = Tab(socket)
            target = await tab.call("Target.createTarget", url="about:blank")
            attached = await tab.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            tab.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.call(f"{domain}.enable")
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            await tab.call("Emulation.setDeviceMetricsOverride", **size)
            feature = [{"name": "prefers-color-scheme", "value": scheme}]
            await tab.call("Emulation.setEmulatedMedia", features=feature)
            tab.events.clear()
            await tab.call("Page.navigate", url=url)
            await tab.until("Page.loadEventFired")
            answer = await tab.call(
                "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
            )
            await tab.call("Target.closeTarget", targetId=target["targetId"])
        return Visit(answer, tab.events, url)


class Tab:
    """One session; answers and events come as they like."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.session = ""
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json({**message, "sessionId": self.session} if self.session else message)
        while True:
            answer = await self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    async def until(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            await self._receive()

    async def _receive(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self._socket.receive_json(timeout=START_S)
        if "method" in answer:
            self.events.append(answer)
        return answer


class Visit:
    """``value`` is the script's; ``complaints`` are of the console; ``requests`` went beyond the page itself."""

    def __init__(self, answer: dict[str, Any], events: list[dict[str, Any]], url: str) -> None:
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        self.value = answer["result"].get("value")
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        self.complaints = [event["params"] for event in events if event["method"] in kinds]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        self.requests = [found for found in asked if found != url and not found.startswith("data:")]
