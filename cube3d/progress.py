"""How far a long step is: a bar with the remaining time on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

LINE_EVERY = 15.0
"""Seconds between the plain lines."""

BAR_AFTER = 1.0
"""Seconds before a bar appears: what is done by then needs none."""

Item = TypeVar("Item")


class Progress:
    """Counts up to a total.

    Args:
        name: what is being done.
        total: of what :meth:`advance` adds up; None: nobody knows.
    """

    def __init__(self, name: str, total: int | None) -> None:
        self._name, self._total = name, total
        self._done = self._skipped = 0
        self._started = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            # Asked for by name: TQDM_DISABLE is there to silence the bars of other libraries.
            self._bar = tqdm(total=total, desc=name, unit_scale=True, leave=False, delay=BAR_AFTER, disable=False)

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done.

        Args:
            count: how many.
            note: stands at the end of the line, such as the loss.
        """
        self._done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        fresh = self._done - self._skipped
        if now - self._said < LINE_EVERY or self._done == self._total or not fresh:
            return
        self._said = now
        place = f"{self._done}"
        if self._total is not None:
            left = (now - self._started) * max(self._total - self._done, 0) / fresh
            place += f" of {self._total}, {_duration(left)} left"
        print(f"{self._name}: {place}  {note}".rstrip(), file=sys.stderr, flush=True)

    def skip(self, count: int) -> None:
        """So many were done before: they say nothing of the remaining time."""
        self._done = self._skipped = count
        if self._bar is not None:
            self._bar.initial = self._bar.n = self._bar.last_print_n = count

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()


def say(line: str) -> None:
    """A line on standard output, above the bars if there are any."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def progress(items: Iterable[Item], name: str, total: int | None) -> Iterator[Item]:
    """The items, with their progress.

    Args:
        items: one after the other; a list among them counts for as many as it holds.
        name: what is being done.
        total: of the counts; None: nobody knows.
    """
    shown = Progress(name, total)
    try:
        for item in items:
            yield item
            shown.advance(len(item) if isinstance(item, list) else 1)
    finally:
        shown.close()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
