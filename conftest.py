"""`pytest` runs the tests, `pytest --benchmark` (or `--benchmark-only`) the benchmarks."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Threads that wait for each other and spin on a shared core slow a test down many times; before torch is imported.
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

pytest_plugins = ["tests.conformance.summary"]

COMPILING = {"test_cpp.py", "test_resources.py", "test_cuda.py", "test_triton_driver.py", "test_compiled.py"}
"""Files of tests that run compilers for minutes."""

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmark", action="store_true", help="run the benchmarks, and nothing else")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--benchmark") or config.getoption("--benchmark-only", False)
    sorted_out = {chosen: list[pytest.Item](), not chosen: list[pytest.Item]()}
    for item in items:
        sorted_out[BENCHMARKS in item.path.parents].append(item)
    config.hook.pytest_deselected(items=sorted_out[not chosen])
    # Those that compile take longest: where there are several processes, the others go on beside them.
    items[:] = sorted(sorted_out[chosen], key=lambda item: item.path.name not in COMPILING)
