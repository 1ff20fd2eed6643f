"""Builds and runs the C++ tests in csrc/tests: plain, and under sanitizers, which know of memory and threads what no
test sees."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "csrc"
# An environment's tools lie beside its Python, which need not be on the path.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def run(*command: str) -> str:
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def why_not() -> str | None:
    """What the build lacks, or None. Where the native module must be built, the tests must be, too."""
    if os.environ.get("CUBE_KERNELS_BUILD_NATIVE") == "1":
        return None
    compilers = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if not any(compiler and shutil.which(compiler.split()[0], path=PATH) for compiler in compilers):
        return "there is no C++ compiler"
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool, path=PATH) is None]
    return f"{' and '.join(missing)} not found; `pip install 'cube-kernels[test]'` has them" if missing else None


@pytest.mark.skipif(why_not() is not None, reason=f"csrc/tests cannot be built: {why_not()}")
@pytest.mark.parametrize("sanitizers", ["", "address,undefined", "thread"])
def test_the_cpp_tests_pass(sanitizers: str, tmp_path: Path) -> None:
    cmake = shutil.which("cmake", path=PATH) or "cmake"
    options = ["-DCUBE_BUILD_TESTS=ON", f"-DCUBE_SANITIZE={sanitizers}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    run(cmake, "-S", str(SOURCE), "-B", str(tmp_path), "-G", "Ninja", *options)
    run(cmake, "--build", str(tmp_path))
    print(run(str(tmp_path / "cube_tests")))
