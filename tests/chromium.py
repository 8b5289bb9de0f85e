"""A headless Chromium, driven by its DevTools protocol over a pipe: no driver, no port, no package."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_SECONDS = 60


def find_chromium():
    """Returns where a Chromium is, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium(contextlib.AbstractContextManager):
    """The browser, with the network off."""

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        profile = self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        (to_read, self._write), (self._read, to_write) = os.pipe(), os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; these may be taken by our own, so they move up first.
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (to_read, to_write)]
        command = [find_chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "--hide-scrollbars"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{high[0]} 4>&{high[1]}', *command],
            pass_fds=high,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for descriptor in (to_read, to_write, *high):
            os.close(descriptor)
        self._received, self._last_id = b"", 0
        self.events = []
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self._send("Browser.close", {}, None)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._stack.close()

    def call(self, method, session=None, /, **params):
        """Calls a method of the protocol and returns its result; events that come meanwhile go to `events`."""
        number = self._send(method, params, session)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            message = self._receive(deadline - time.monotonic(), method)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def open(self, file, **view):
        """Opens a file; see `Page`."""
        return Page(self, file, **view)

    def _send(self, method, params, session):
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        return self._last_id

    def _receive(self, timeout, method):
        while b"\0" not in self._received:
            if not select.select([self._read], [], [], max(0, timeout))[0]:
                raise TimeoutError(f"{method}: no answer in {TIMEOUT_SECONDS} s")
            chunk = os.read(self._read, 1 << 16)
            if not chunk:
                raise RuntimeError(f"Chromium has ended, with status {self._process.wait()}")
            self._received += chunk
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)


class Page:
    """A page that has been loaded and has said that it is ready.

    Args:
        browser: The browser.
        file: The HTML file.
        width: Of the window, in CSS pixels.
        height: The same.
        scheme: `light` or `dark`.
        scale: Device pixels for a CSS pixel.
    """

    def __init__(self, browser, file, *, width=1280, height=900, scheme="light", scale=1):
        self._browser, self._width = browser, width
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        speeds = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self._call("Network.emulateNetworkConditions", offline=True, **speeds)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._resize(height, scale)
        self._call("Page.navigate", url=pathlib.Path(file).resolve().as_uri())
        self.wait("document.documentElement?.dataset.ready === 'true'")

    def _call(self, method, **params):
        return self._browser.call(method, self._session, **params)

    def _resize(self, height, scale):
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=self._width, height=height, deviceScaleFactor=scale, mobile=self._width < 600,
        )  # fmt: skip

    def evaluate(self, script):
        """Returns the value of a JavaScript expression."""
        result = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, script):
        """Waits until an expression is true."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self.evaluate(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script} is not true after {TIMEOUT_SECONDS} s; {self.complaints()}")
            time.sleep(0.05)

    def hover(self, selector, across=0.5, down=0.5):
        """Moves the pointer over an element, to this share of its width and height."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"JSON.parse(JSON.stringify({place}.getBoundingClientRect()))")
        x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
        for offset in (-2, 0):
            self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x + offset, y=y)
        return x, y

    def click(self, selector):
        """Clicks an element."""
        x, y = self.hover(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self):
        """Returns what went wrong: exceptions, errors and warnings on the console, and what was blocked."""
        found = []
        for event in self._own_events():
            match event:
                case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                    found.append(details)
                case {"method": "Log.entryAdded", "params": {"entry": {"level": "error" | "warning"} as entry}}:
                    found.append(entry)
                case {"method": "Runtime.consoleAPICalled", "params": {"type": "error" | "warning", "args": args}}:
                    found.append(args)
        return found

    def requests(self):
        """Returns the addresses that the page has asked for."""
        return [e["params"]["request"]["url"] for e in self._own_events() if e["method"] == "Network.requestWillBeSent"]

    def _own_events(self):
        self.evaluate("0")  # so that all events before have come
        return [event for event in self._browser.events if event.get("sessionId") == self._session]

    def screenshot(self, file, *, full=True):
        """Writes a picture of the page, or of what is in the window."""
        if full:
            height = self.evaluate("document.documentElement.scrollHeight")
            size = {"x": 0, "y": 0, "width": self._width, "height": height, "scale": 1}
            shot = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=size)
        else:
            shot = self._call("Page.captureScreenshot")
        pathlib.Path(file).write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, file):
        """Prints the page."""
        a4 = {"paperWidth": 8.27, "paperHeight": 11.7, "preferCSSPageSize": True}
        printed = self._call("Page.printToPDF", printBackground=True, **a4)
        pathlib.Path(file).write_bytes(base64.b64decode(printed["data"]))
