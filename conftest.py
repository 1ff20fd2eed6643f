"""`pytest` runs the tests, `pytest --benchmark` the benchmarks."""

from pathlib import Path

import pytest

pytest_plugins = ["tests.conformance.summary"]

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmark", action="store_true", help="run the benchmarks, and nothing else")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--benchmark")
    unwanted = [item for item in items if (BENCHMARKS in item.path.parents) != chosen]
    config.hook.pytest_deselected(items=unwanted)
    items[:] = [item for item in items if item not in unwanted]
