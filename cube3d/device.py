"""Where models are trained and run, and by which processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import PartialState

from cube3d.errors import UserError


def find_device(name: str, setting: str) -> torch.device:
    """The device of that name.

    Args:
        name: "cpu", "cuda", "cuda:1" or another of torch's; "auto" takes an accelerator if there is one.
        setting: who asks, for the message.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.empty(1, device=name).cpu()  # "meta" holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch without CUDA asserts
        reason = str(error).split("\n")[0]
        raise UserError(f"{setting} is {name!r}, which is not to be had here ({reason}); 'auto' finds one") from error
    return torch.device(name)


def training_process(name: str) -> PartialState:
    """This process, of one or of those that torchrun started, on the device it trains on: several take an accelerator
    each and talk by nccl, or the CPU and talk by gloo.

    Args:
        name: ``training.device``; see :func:`find_device`.

    Raises:
        UserError: there is no such device here, or it is one accelerator for several processes.
    """
    device = find_device(name, "training.device")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1 and device.index is not None:
        raise UserError(
            f"training.device is {name!r}, and there are {processes} processes, which take a device each; say "
            f"{device.type!r} or 'auto'"
        )
    process = PartialState(cpu=device.type == "cpu")
    if processes == 1:
        process.device = device if device.type == "cpu" or device.index is not None else torch.device(device.type, 0)
    return process


@contextmanager
def first_process() -> Iterator[bool]:
    """Whether this process is the only one or the first of several, the one that writes; at the end they wait for each
    other."""
    several = dist.is_available() and dist.is_initialized()
    yield not several or dist.get_rank() == 0
    if several:
        dist.barrier()
