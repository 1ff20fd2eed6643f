"""Triton's interpreter in a process of its own: one process cannot both interpret and compile kernels."""

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets them itself")
def test_the_kernels_are_right_in_the_interpreter():
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/triton/interpreted"]
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "passed" in done.stdout
