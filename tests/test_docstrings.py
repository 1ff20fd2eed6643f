"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import cube3d
import cube_kernels

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules():
    for package in (cube_kernels, cube3d):
        yield package.__name__
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda name: None):
            if not found.name.endswith(("__main__", "._native", "._cuda")):
                yield found.name


@pytest.mark.parametrize("name", list(modules()))
def test_a_docstring_s_examples_give_what_they_say(name):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:  # of an extra
        pytest.skip(f"{error.name} is not installed")
    assert doctest.testmod(module, optionflags=FLAGS).failed == 0
