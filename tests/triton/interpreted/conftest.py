"""Every kernel runs under the sanitizer, in small blocks, on memory that holds NaN until it is written."""

import pytest
import triton

from cube_kernels.backends.triton import launch
from tests.triton.interpreter import repaired
from tests.triton.sanitizer import sanitized


@pytest.fixture(params=[{"BLOCK": 64, "HIDDEN": 32}], ids=str)
def blocks(request, monkeypatch):
    """The sizes of all kernels: small lattices then take several programs, and wide rules several chunks."""
    monkeypatch.setattr(launch.Configurations, "fitting", lambda *_: [triton.Config(request.param)])


@pytest.fixture(autouse=True)
def checked(blocks, poisoned):
    with repaired(), sanitized():
        yield
