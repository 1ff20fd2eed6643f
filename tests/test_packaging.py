"""What is built to be installed holds what it should, and says of itself what it should."""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.building import run

ROOT = Path(__file__).parents[1]
NEEDED = {
    "cube_kernels/py.typed",
    "cube_kernels/_native.pyi",
    "cube_kernels/_cuda.pyi",
    "cube3d/py.typed",
    "cube3d/pairs/minimal.jsonl",
    "cube3d/pairs/bundled/nlp.jsonl",
    "cube3d/report/report.html",
}
"""In a wheel, beside Python."""


def test_links_of_the_readme_work_wherever_it_is_shown():
    targets = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert [target for target in targets if not target.startswith("https://")] == []


def test_the_version_stands_in_one_place():
    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert stated
    assert re.search(rf"^## {re.escape(stated[1])}\b", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    sources = [path for package in ("cube_kernels", "cube3d") for path in (ROOT / package).rglob("*.py")]
    assert [path for path in sources if f'"{stated[1]}"' in path.read_text()] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and, from that, a wheel without compiled modules."""
    pytest.importorskip("build", reason="build is not installed; `pip install 'cube-kernels[build]'`")
    folder = tmp_path_factory.mktemp("dist")
    parts = {"CUBE_KERNELS_BUILD_NATIVE": "0", "CUBE_KERNELS_BUILD_CUDA": "0"}
    checkout = folder / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "dist", "runs", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    run(sys.executable, "-m", "build", "--outdir", str(folder), str(checkout), **parts)
    return folder


@pytest.mark.sweep
def test_a_wheel_holds_stubs_types_and_data(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        metadata = Parser().parsestr(wheel.read(next(n for n in names if n.endswith("/METADATA"))).decode())
    assert names >= NEEDED
    modules = {str(p.relative_to(ROOT)) for room in ("cube_kernels", "cube3d") for p in (ROOT / room).rglob("*.py")}
    assert modules <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cube_kernels", "cube3d"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier")


@pytest.mark.sweep
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_an_sdist_is_the_checkout(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    kept = ("csrc", "cube_kernels", "cube3d", "tests", "tools", "docs", "examples", "benchmarks")
    tracked = run("git", "-C", str(ROOT), "ls-files", *kept).split()
    assert set(tracked) <= names
    assert {"conftest.py", "Makefile", "constraints.txt", "pyproject.toml", "setup.py"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
