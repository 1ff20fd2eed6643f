"""Pages in a headless Chromium: what it makes of them, and what it has to complain of."""

import base64
import fcntl
import io
import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium (Debian's package is called chromium)")


def _command(folder, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-dev-shm-usage"]
    return [*command, f"--user-data-dir={folder / 'profile'}", *options]


def browse(path):
    """The document after it was loaded, and what the browser wrote to its console."""
    command = _command(path.parent, "--disable-gpu", "--enable-logging=stderr", "--dump-dom", path.as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


class Browser:
    """A page to be used: over the pipe that Chromium's debugging protocol is spoken on. WebGL is drawn in software."""

    def __init__(self, path):
        self._open()
        software = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
        command = _command(path.parent, *software, "--window-size=640,560", "--remote-debugging-pipe")
        self._process = subprocess.Popen(
            command, pass_fds=(3, 4), preexec_fn=self._hand_over, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(self._theirs[0])
        os.close(self._theirs[1])
        self._count, self._left, self._session, self.console = 0, b"", None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Runtime.enable")
        self.ask("Log.enable")
        self.ask("Page.navigate", url=path.as_uri())

    def _open(self):
        read, write = os.pipe(), os.pipe()
        # Out of the way of the numbers that Chromium expects.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (*read, *write)]
        for end in (*read, *write):
            os.close(end)
        self._theirs, self._from, self._to = (high[0], high[3]), high[2], high[1]

    def _hand_over(self):
        os.dup2(self._theirs[0], 3)
        os.dup2(self._theirs[1], 4)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._from)
        os.close(self._to)

    def ask(self, method, **parameters):
        """The answer to a command of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.console.append(answer["params"])
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        while b"\0" not in self._left:
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        """What an expression of JavaScript gives."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression):
        """Until an expression is true."""
        end = time.monotonic() + 60
        while not self.evaluate(expression):
            assert time.monotonic() < end, (expression, self.console)
            time.sleep(0.05)

    def picture(self):
        """Of the page, ``[rows, columns, 3]``."""
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def drag(self, start, end):
        """The mouse, with its button held."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
