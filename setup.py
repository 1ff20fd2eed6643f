"""Builds the torch-free modules through CMake and Ninja; everything else stands in pyproject.toml.

CUBE_KERNELS_BUILD_NATIVE and CUBE_KERNELS_BUILD_CUDA: auto (default) installs without the module, with a warning, where
its compiler does not work, 1 makes that an error, 0 does not try. Where there is no nvcc, auto does not try either.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CHOICES = ("auto", "0", "1")
MEMORY_A_JOB = 2 << 30  # bytes; nvcc's front end takes about 1 GiB


def find_nvcc() -> str | None:
    """nvcc from CUDA_HOME, the PATH, or the PyPI package nvidia-cuda-nvcc beside this Python (which needs
    nvidia-cuda-cccl, too, for its headers)."""
    home = os.environ.get("CUDA_HOME")
    if home:
        return shutil.which("nvcc", path=str(Path(home) / "bin"))
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    packaged = sorted(map(str, packages.glob("*/bin/nvcc")))
    return shutil.which("nvcc") or (packaged[-1] if packaged else None)


def jobs() -> int:
    """Compilers that may run at once: as many as there are cores, if the free memory holds them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return cores
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(cores, free // MEMORY_A_JOB))


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        part = ext.name.rpartition("._")[2]
        variable = f"CUBE_KERNELS_BUILD_{part.upper()}"
        choice = os.environ.get(variable, "auto")
        if choice not in CHOICES:
            raise ValueError(f"{variable} is {choice!r}; valid: {', '.join(CHOICES)}")
        module = Path(self.get_ext_fullpath(ext.name)).resolve()
        module.unlink(missing_ok=True)  # what is not built now must not be found later
        if choice == "0":
            return
        options = []
        if part == "cuda":
            nvcc = find_nvcc()
            if nvcc is None and choice == "auto":
                return
            if nvcc is None:
                raise FileNotFoundError(
                    f"{variable} is 1, but there is no nvcc in CUDA_HOME, on the PATH or in nvidia-cuda-nvcc from PyPI"
                )
            options = [f"-DCMAKE_CUDA_COMPILER={nvcc}"]
        try:
            self.run_cmake(part, module.parent, options)
        except (OSError, subprocess.CalledProcessError) as error:
            if choice == "1":
                raise
            warnings.warn(
                f"cube_kernels: the {part} module was not built ({error}); `python -m cube_kernels.info` "
                "says what is missing",
                stacklevel=1,
            )

    def run_cmake(self, part: str, module_folder: Path, options: list[str]) -> None:
        import pybind11

        build = Path("build") / f"{part}-{sys.implementation.cache_tag}"
        cache = build / "CMakeCache.txt"
        # An isolated build has its tools in a new folder each time, and CMake remembers the old one. What is compiled
        # stays: all but the bindings need none of them.
        if cache.exists() and pybind11.get_cmake_dir() not in cache.read_text():
            cache.unlink()
        configure = ["cmake", "-S", "csrc", "-B", str(build), "-G", "Ninja", f"-DCUBE_MODULE={part}"]
        configure += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
        configure += [f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={module_folder}"]
        subprocess.run([*configure, *options], check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel", str(jobs())], check=True)


setup(
    ext_modules=[
        Extension("cube_kernels._native", sources=[], optional=True),
        Extension("cube_kernels._cuda", sources=[], optional=True),
    ],
    cmdclass={"build_ext": CMakeBuild},
)
