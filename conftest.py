"""`pytest` runs the tests, `pytest --benchmark` (or `--benchmark-only`) the benchmarks."""

import gc
import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Threads that wait for each other and spin on a shared core slow a test down many times; before torch is imported.
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

pytest_plugins = ["tests.conformance.summary"]

TESTS = Path(__file__).parent / "tests"
LONGEST = [
    "test_cpp.py",
    "test_resources.py",
    "cube3d/training/test_training.py",
    "cube3d/test_interruptions.py",
    "triton/test_interpreted.py",
    "cube_kernels/test_transforms.py",
    "cube3d/reader/test_reader_runs.py",
    "cube3d/export/test_export_reader.py",
    "cuda/test_conformance.py",
    "cuda/test_compiled.py",
    "cube3d/test_runs.py",
    "cube3d/experiments/test_search.py",
    "conformance/test_backends.py",
    "cube3d/evaluation/test_evaluate.py",
    "cube3d/test_command_line.py",
    "test_readme.py",
]
"""Files of tests that take more than half a minute, the longest first."""

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmark", action="store_true", help="run the benchmarks, and nothing else")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--benchmark") or config.getoption("--benchmark-only", False)
    sorted_out = {chosen: list[pytest.Item](), not chosen: list[pytest.Item]()}
    for item in items:
        sorted_out[BENCHMARKS in item.path.parents].append(item)
    config.hook.pytest_deselected(items=sorted_out[not chosen])
    # A process runs a file at a time: a long one that comes late leaves the other processes without work.
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    items[:] = sorted(sorted_out[chosen], key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests and all that they import stay to the end: no collection of garbage goes through them again,
    and each training asks for one."""
    gc.freeze()
    session.config.add_cleanup(gc.unfreeze)
