"""Processes forked from one that has imported what the commands do: imports take seconds each time, and they the rest.

Two such processes hash strings alike, and import nothing in between: a test that this would blind starts some afresh.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["pytest", "cube3d.cli", "cube3d.run", "cube3d.evaluation.evaluate", "cube3d.experiments.search", "cube3d.report"]
)


class Forked:
    """A function of a module, running in a process of its own with the environment of this one; what it returns is its
    exit code."""

    def __init__(self, function, *arguments):
        self._folder = tempfile.TemporaryDirectory()
        given = (self._folder.name, dict(os.environ), function, arguments)
        self._process = _FORKS.Process(target=_run, args=given)
        self._process.start()

    def end(self):
        """Waits for it; what :func:`subprocess.run` returns."""
        self._process.join(timeout=600)
        assert self._process.exitcode is not None, "it does not end"
        with self._folder as folder:
            printed = [(Path(folder) / name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess((), self._process.exitcode, *printed)


def _run(folder, environment, function, arguments):
    for number, name in enumerate(("stdout", "stderr"), start=1):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(function(*arguments))
