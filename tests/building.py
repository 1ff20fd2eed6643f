"""Builds what is under csrc for the tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "csrc"
# An environment's tools lie beside its Python, which need not be on the path.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def outcome(*command: str, **variables: str) -> tuple[int, str]:
    """The exit code and all that was printed."""
    environment = {**os.environ, "PATH": PATH, **variables}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    return done.returncode, done.stdout


def run(*command: str, **variables: str) -> str:
    code, printed = outcome(*command, **variables)
    assert code == 0, f"{' '.join(command)} ended with {code}:\n{printed}"
    return printed


def why_not() -> str | None:
    """What a build lacks, or None. Where the native module must be built, the tests must be, too."""
    if os.environ.get("CUBE_KERNELS_BUILD_NATIVE") == "1":
        return None
    compilers = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if not any(compiler and shutil.which(compiler.split()[0], path=PATH) for compiler in compilers):
        return "there is no C++ compiler"
    missing = [tool for tool in ("cmake", "ninja") if shutil.which(tool, path=PATH) is None]
    return f"{' and '.join(missing)} not found; `pip install 'cube-kernels[test]'` has them" if missing else None


def cmake() -> str:
    return shutil.which("cmake", path=PATH) or "cmake"


def configure(build: Path, *options: str, source: Path = SOURCE) -> None:
    run(cmake(), "-S", str(source), "-B", str(build), "-G", "Ninja", *options)


def configure_tests(build: Path, sanitizers: str, source: Path = SOURCE) -> None:
    """The C++ tests, with sanitizers as ``-fsanitize`` takes them."""
    options = ["-DCUBE_BUILD_TESTS=ON", f"-DCUBE_SANITIZE={sanitizers}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    configure(build, *options, source=source)
