"""Builds and runs the C++ tests in csrc/tests: plain, and under sanitizers, which know of memory and threads what no
test sees."""

from pathlib import Path

import pytest

from tests.building import cmake, configure_tests, run, why_not


@pytest.mark.skipif(why_not() is not None, reason=f"csrc/tests cannot be built: {why_not()}")
@pytest.mark.parametrize("sanitizers", ["", "address,undefined", "thread"])
@pytest.mark.parametrize("tests", ["cube_tests", "cube_cuda_tests"])
def test_the_cpp_tests_pass(tests: str, sanitizers: str, tmp_path: Path) -> None:
    """``cube_cuda_tests`` are those of the CUDA kernels, as emulated on the CPU."""
    configure_tests(tmp_path, sanitizers)
    run(cmake(), "--build", str(tmp_path), "--target", tests)
    print(run(str(tmp_path / tests)))
