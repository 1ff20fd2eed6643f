"""`pytest` runs the tests, `pytest --benchmark` the benchmarks."""

from pathlib import Path

import pytest

pytest_plugins = ["tests.conformance.summary"]

COMPILING = {"test_cpp.py", "test_resources.py", "test_cuda.py", "test_triton_driver.py", "test_compiled.py"}
"""Files of tests that run compilers for minutes."""

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmark", action="store_true", help="run the benchmarks, and nothing else")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--benchmark")
    sorted_out = {chosen: list[pytest.Item](), not chosen: list[pytest.Item]()}
    for item in items:
        sorted_out[BENCHMARKS in item.path.parents].append(item)
    config.hook.pytest_deselected(items=sorted_out[not chosen])
    # Those that compile take longest: where there are several processes, the others go on beside them.
    items[:] = sorted(sorted_out[chosen], key=lambda item: item.path.name not in COMPILING)
