"""Builds the torch-free native module through CMake and Ninja; everything else stands in pyproject.toml.

CUBE_KERNELS_BUILD_NATIVE=auto (default) installs the pure-Python part with a warning where no C++ compiler
works, 1 makes that an error, 0 does not try.
"""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CHOICES = ("auto", "0", "1")


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        choice = os.environ.get("CUBE_KERNELS_BUILD_NATIVE", "auto")
        if choice not in CHOICES:
            raise ValueError(f"CUBE_KERNELS_BUILD_NATIVE is {choice!r}; valid: {', '.join(CHOICES)}")
        if choice == "0":
            return
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        module.unlink(missing_ok=True)  # a build that fails must not leave an older module behind
        try:
            self.run_cmake(module.parent)
        except (OSError, subprocess.CalledProcessError) as error:
            if choice == "1":
                raise
            warnings.warn(
                f"cube_kernels: the native module was not built ({error}); `python -m cube_kernels.info` "
                "says what is missing",
                stacklevel=1,
            )

    def run_cmake(self, module_folder: Path) -> None:
        import pybind11

        build = Path("build") / f"native-{sys.implementation.cache_tag}"
        cache = build / "CMakeCache.txt"
        # An isolated build has its tools in a new folder each time, and CMake remembers the old one.
        if cache.exists() and pybind11.get_cmake_dir() not in cache.read_text():
            shutil.rmtree(build)
        configure = ["cmake", "-S", "csrc", "-B", str(build), "-G", "Ninja"]
        configure += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
        configure += [f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={module_folder}"]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)


setup(
    ext_modules=[Extension("cube_kernels._native", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
