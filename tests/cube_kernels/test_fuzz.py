"""Odd and wrong arguments, each kind in each place: a right result or an exception, never a crash. What they are stands
in :mod:`tests.cube_kernels.fuzz`."""

import os
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cube_kernels import BackendError
from tests.cube_kernels import fuzz


def run_apart(*arguments: int) -> None:
    """In a process of its own, whose fresh memory holds no zeros; its last line names the case that ended it."""
    environment = dict(os.environ, MALLOC_PERTURB_="165")
    command = [sys.executable, "-m", "tests.cube_kernels.fuzz", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(done.stdout)
    last = [line for line in done.stderr.splitlines() if line.startswith("case ")][-1:]
    assert done.returncode in (0, 1), f"exit status {done.returncode} in {last}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, done.stdout[-5000:] or done.stderr[-3000:]


def test_no_argument_crashes_a_call():
    run_apart()


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(10))
def test_no_two_arguments_crash_a_call(seed):
    run_apart(seed, 2000)


TARGETS = {target.name: target for target in fuzz.targets() if not target.name.startswith("cube_kernels.")}
OF_SHAPES = ("dim ", "torch.", "empty", "scalar", "without a dim", "one dim", "None")
"""Changes of a tensor that its fake knows."""


def refusal(target: fuzz.Target, arguments: list, mode) -> tuple[type, str] | None:
    try:
        with mode:
            target.call(*arguments)
    except Exception as refused:
        return type(refused), str(refused)
    return None


@pytest.mark.parametrize("name", TARGETS)
def test_fakes_refuse_what_kernels_refuse(name):
    """By the same words; and what kernels take, fakes take."""
    target, refused = TARGETS[name], 0
    for case in fuzz.singles(target):
        ((argument, change),) = case.items() or [("", "")]
        of_tensor = isinstance(target.arguments.get(argument), torch.Tensor)
        if fuzz.left_out(target, case) or (not change.startswith(OF_SHAPES) if of_tensor else change == "a tensor"):
            continue
        arguments = fuzz.given(target, case)
        if arguments is None:
            continue
        mode = FakeTensorMode()
        faked = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments.values()]
        expected = refusal(target, list(arguments.values()), torch.no_grad())
        if expected is not None and issubclass(expected[0], BackendError):
            continue  # whether a backend is there is asked where it runs
        assert refusal(target, faked, mode) == expected, case
        refused += expected is not None
    assert refused > 30
