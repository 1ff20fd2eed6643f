"""Builds and runs the C++ tests in csrc/tests: plain, and under sanitizers, which know of memory and threads what no
test sees."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.building import cmake, configure_tests, run, why_not

SANITIZERS = ["thread", "address,undefined", ""]  # what takes longest comes first


def build_and_run(tests: str, sanitizers: str, build: Path) -> str:
    configure_tests(build, sanitizers)
    run(cmake(), "--build", str(build), "--target", tests)
    return run(str(build / tests))


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """Of all the tests that are chosen, two at once: while one runs, in one thread, another compiles."""
    chosen = [item for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(2) as pool:
        yield {
            item.name: pool.submit(build_and_run, **item.callspec.params, build=tmp_path_factory.mktemp("build"))
            for item in chosen
        }


@pytest.mark.skipif(why_not() is not None, reason=f"csrc/tests cannot be built: {why_not()}")
@pytest.mark.parametrize("sanitizers", SANITIZERS)
@pytest.mark.parametrize("tests", ["cube_cuda_tests", "cube_tests"])
def test_the_cpp_tests_pass(
    tests: str, sanitizers: str, runs: dict[str, Future[str]], request: pytest.FixtureRequest
) -> None:
    """``cube_cuda_tests`` are those of the CUDA kernels, as emulated on the CPU."""
    print(runs[request.node.name].result())
