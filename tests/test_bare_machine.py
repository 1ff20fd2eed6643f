"""A machine without GPU, driver, nvcc, Triton or compiled modules: the package imports, computes, and says what is
missing."""

import os
import subprocess
import sys

HIDE = """
import sys
sys.modules.update(dict.fromkeys(["triton", "cube_kernels._native", "cube_kernels._cuda"]))
"""
USE = """
import torch
from cube_kernels import CubeLayer, Lattice, Rule, info
layer = CubeLayer(Lattice((2, 3, 4), 4), Rule(hidden=8), steps=2)
layer(torch.randn(1, 2, 3, 4, 4)).sum().backward()
print(info.report())
"""


def printed(code: str) -> str:
    """By a Python that sees no GPU and no tools, and warns of nothing."""
    environment = {**os.environ, "PATH": "", "CUDA_VISIBLE_DEVICES": "", "CUDA_HOME": "", "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_without_anything_to_compile_with_the_reference_computes():
    report = printed(HIDE + USE)
    for module in ("native", "cuda"):
        assert f"module is not built (import of cube_kernels._{module} halted; None in sys.modules)" in report
    assert "triton      no: Triton is not installed; run `pip install triton`" in report
    assert "reference   yes" in report


def test_without_a_gpu_each_backend_for_one_says_so():
    report = printed(USE)
    assert "cuda device   none" in report
    assert "cuda        no: " in report
    assert "triton      no: " in report
