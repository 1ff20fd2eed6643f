"""The page of what each backend supports is what the backends say."""

import pytest

from cube_kernels.backends import cuda
from tests.cube_kernels.support import PAGE, page


def test_the_page_is_what_the_backends_say():
    pytest.importorskip("triton", reason="Triton is not installed")
    module, reason = cuda.extension()
    if module is None:
        pytest.skip(reason)
    assert PAGE.read_text() == page()
