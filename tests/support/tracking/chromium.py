"""Headless Chromium for tests, driven over its DevTools protocol."""

import asyncio
import base64
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """Chromium's path, None where it is not installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class PageTimeoutError(AssertionError):
    """The page did not show what was waited for."""


class Page:
    """One page of a browser."""

    def __init__(self, runner: asyncio.Runner, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._runner = runner
        self._socket = socket
        self._number = 0

    def open(self, url: str) -> None:
        """Go to an address."""
        # A change behind the hash alone would not load the page again.
        self.command("Page.navigate", url="about:blank")
        self.command("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self.command(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def text(self) -> str:
        """Everything that a person can read on the page."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    def wait(self, condition: str, timeout: float = 60) -> float:
        """Wait until a JavaScript expression is true; returns the seconds it took.

        Raises:
            PageTimeoutError: With the page's text.
        """
        started = time.monotonic()
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() - started > timeout:
                raise PageTimeoutError(
                    f"{condition} after {timeout} s; page:\n{self.text()[:2000]}"
                )
            time.sleep(0.2)
        return time.monotonic() - started

    def wait_text(self, *wanted: str, timeout: float = 60) -> float:
        """Wait until all of these can be read on the page; returns the seconds it took."""
        return self.wait(
            f"{json.dumps(wanted)}.every(t => document.body?.innerText.includes(t))", timeout
        )

    def click(self, text: str, timeout: float = 60) -> None:
        """Press the innermost visible element that reads exactly so."""
        find = (
            "[...document.querySelectorAll('body *')].filter(e => e.innerText !== undefined "
            f"&& e.innerText.trim() === {json.dumps(text)} && e.getClientRects().length).at(-1)"
        )
        self.wait(find, timeout)
        self.focus(find)

    def type(self, text: str) -> None:
        """Write into the field that has the focus, then press Enter."""
        self.command("Input.insertText", text=text)
        time.sleep(0.5)
        self.key("Enter", 13, text="\r")
        time.sleep(0.5)

    def key(self, name: str, code: int, **further: str) -> None:
        """Press a key, given its name and its Windows code."""
        pressed = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.command("Input.dispatchKeyEvent", **{"type": "keyDown"}, **pressed, **further)
        self.command("Input.dispatchKeyEvent", **{"type": "keyUp"}, **pressed)

    def focus(self, element: str) -> None:
        """Click into the element that a JavaScript expression gives."""
        x, y, width, height = self.place(element)
        self.press(x + width / 2, y + height / 2)

    def place(self, element: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element that no longer moves, brought into sight."""
        self.wait(element)
        script = (
            f"(() => {{ const e = {element}; if (!e) return null; "
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); "
            "return [r.x, r.y, r.width, r.height]; })()"
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            before = self.evaluate(script)
            time.sleep(0.1)
            if before is not None and before == self.evaluate(script):
                return before[0], before[1], before[2], before[3]
        raise PageTimeoutError(f"{element} still moves after 60 s; page:\n{self.text()[:2000]}")

    def press(self, x: float, y: float) -> None:
        """Press the left mouse button at a place."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.command(
                "Input.dispatchMouseEvent",
                **{"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1},
            )

    def dismiss_assistant(self) -> None:
        """Close the panel that MLflow opens at the right of a first visit, where it is open."""
        button = "document.querySelector('[data-component-id$=\"chat_panel.close\"]')"
        try:
            self.wait(button, timeout=5)
        except PageTimeoutError:
            return
        self.evaluate(f"{button}.click()")
        self.wait(f"!{button}")

    def screenshot(self, path: Path, *, width: int = 1400, height: int = 900) -> None:
        """Save what the window shows as PNG."""
        self.resize(width, height)
        time.sleep(1)
        answer = self.command("Page.captureScreenshot", format="png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer."""
        return self._runner.run(self._send(method, params))

    async def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await self._socket.receive(timeout=120)
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise RuntimeError(f"{method}: Chromium went away ({message.type.name})")
            answer = json.loads(message.data)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]


@contextmanager
def browser(executable: str) -> Iterator[Page]:
    """A fresh Chromium with one page; it is ended with the block."""
    profile = Path(tempfile.mkdtemp(prefix="spikeseg-chromium-"))
    process = subprocess.Popen(
        [executable, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        port = _port(profile / "DevToolsActivePort", process)
        with asyncio.Runner() as runner:
            session, socket = runner.run(_connect(port))
            page = Page(runner, socket)
            page.command("Page.enable")
            page.resize(1400, 900)
            try:
                yield page
            finally:
                runner.run(socket.close())
                runner.run(session.close())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Chromium ended with code {process.returncode} at start")
        if file.is_file() and (text := file.read_text()).count("\n"):
            return int(text.splitlines()[0])
        time.sleep(0.1)
    raise RuntimeError("Chromium opened no DevTools port within 120 s")


async def _connect(port: int) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    while True:
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            pages = [p for p in await answer.json() if p["type"] == "page"]
        if pages:
            break
        await asyncio.sleep(0.1)
    socket = await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
    return session, socket
