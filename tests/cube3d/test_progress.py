"""Progress: a bar on a terminal, lines elsewhere, and nothing for what takes no time."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from cube3d import progress as progresses
from cube3d.progress import Progress, progress

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now = 1000.0

    clock = Clock()
    monkeypatch.setattr(progresses.time, "monotonic", lambda: clock.now)
    return clock


def test_a_line_every_quarter_of_a_minute_with_the_time_that_is_left(clock, capsys):
    shown = Progress("reading", 100)
    for _ in range(9):
        clock.now += 5
        shown.advance(10, "loss 0.5")
    shown.close()
    assert capsys.readouterr().err.splitlines() == [
        "reading: 30 of 100, 0:35 left  loss 0.5",
        "reading: 60 of 100, 0:20 left  loss 0.5",
        "reading: 90 of 100, 0:05 left  loss 0.5",
    ]


def test_hours_that_are_left(clock, capsys):
    shown = Progress("reading", 1000)
    clock.now += 60
    shown.advance(10)
    assert capsys.readouterr().err == "reading: 10 of 1000, 1:39:00 left\n"


def test_without_a_total_no_time_is_left(clock, capsys):
    shown = Progress("reading", None)
    clock.now += 60
    shown.advance(10, "so far")
    assert capsys.readouterr().err == "reading: 10  so far\n"


def test_what_was_done_before_says_nothing_of_the_speed(clock, capsys):
    shown = Progress("reading", 1000)
    shown.skip(900)
    clock.now += 20
    shown.advance(10)
    assert capsys.readouterr().err == "reading: 910 of 1000, 3:00 left\n"


def test_a_step_of_nothing_and_one_too_many(clock, capsys):
    shown = Progress("reading", 10)
    clock.now += 20
    shown.advance(0)
    clock.now += 20
    shown.advance(12)
    assert capsys.readouterr().err == "reading: 12 of 10, 0:00 left\n"


def test_what_is_done_is_not_told(clock, capsys):
    shown = Progress("reading", 10)
    clock.now += 60
    shown.advance(10)
    assert capsys.readouterr().err == ""


def test_items_come_through_and_lists_count_what_they_hold(clock, capsys):
    items = [["a", "b"], ["c"], "text", ["d"] * 6]
    found = []
    for item in progress(items, "reading", 10):
        found.append(item)
        clock.now += 20
    assert found == items
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "reading: 2 of 10",
        "reading: 3 of 10",
        "reading: 4 of 10",
    ]


def on_a_terminal(code: str) -> str:
    """What a Python process writes whose standard error is a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # its size is 0 by 0 otherwise
    code = f"import time\nfrom cube3d.progress import *\n{code}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=theirs, env={**os.environ, "TQDM_DISABLE": "1"}
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux's way to say that nobody holds the other end any more
            break
        if not part:
            break
        written += part
    os.close(ours)
    process.wait(timeout=60)
    return written.decode()


# In a process of its own, all of them at once: each costs the start of Python.
SHOWN = """
import cube3d.progress as p
p.BAR_AFTER = 0.2
def mark(name): print(f"<{name}>", file=sys.stderr, flush=True)
mark("blink")
for _ in progress(range(1000), "blinking", 1000): pass
mark("bar")
shown = Progress("reading", 10)
for _ in range(5):
    time.sleep(0.15); shown.advance(1, "loss 0.5")
shown.close()
mark("resumed")
shown = Progress("resuming", 1000)
shown.skip(900)
for _ in range(5):
    time.sleep(0.15); shown.advance(1)
shown.close()
mark("stream")
for _ in progress(iter("abcde"), "streaming", None): time.sleep(0.15)
mark("interrupted")
try:
    for _ in progress(range(10), "stopping", 10):
        time.sleep(0.15)
        if _ == 5: raise KeyboardInterrupt
except KeyboardInterrupt:
    mark("caught")
"""


@pytest.fixture(scope="module")
def terminal():
    parts = re.split(r"<(\w+)>\r\n", on_a_terminal(SHOWN))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def screen(written: str) -> str:
    """The line that is left after all that was written to it."""
    line: list[str] = []
    column = 0
    for character in written:
        if character == "\r":
            column = 0
        else:
            line[column : column + 1] = [character]
            column += 1
    return "".join(line).strip()


def seconds_left(written: str) -> list[int]:
    return [60 * int(m) + int(s) for m, s in re.findall(r"<(\d+):(\d+),", written)]


def test_a_terminal_shows_a_bar_and_then_nothing(terminal):
    assert re.search(r"reading:  [345]0%\|.*\| [345]\.00/10\.0 \[.*loss 0\.5\]", terminal["bar"])
    assert max(seconds_left(terminal["bar"])) <= 10
    assert screen(terminal["bar"]) == ""


def test_a_terminal_shows_nothing_of_what_takes_no_time(terminal):
    assert terminal["blink"] == ""


def test_the_bar_of_a_resumed_step_begins_where_it_stopped(terminal):
    """95 items of 0.15 seconds are left; a bar that took the first 900 for its own speed would say none."""
    assert re.search(r"resuming:  90%", terminal["resumed"])
    assert all(left >= 10 for left in seconds_left(terminal["resumed"]))
    assert seconds_left(terminal["resumed"])


def test_the_bar_of_a_stream_counts(terminal):
    assert re.search(r"streaming: [345]\.00it", terminal["stream"])
    assert screen(terminal["stream"]) == ""


def test_the_bar_of_what_is_interrupted_is_gone_before_anything_else_is_written(terminal):
    assert "stopping" in terminal["interrupted"]
    assert screen(terminal["interrupted"]) == ""
    assert terminal["caught"] == ""
