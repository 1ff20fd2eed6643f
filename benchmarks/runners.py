"""Where a program runs: in this process, or in one of its own that waits on a pipe while others have their turn."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import re
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers import PEERS, Peer, Program


class RefusalError(Exception):
    """A peer that does not run this case; the message is its reason."""


class Runner(Protocol):
    results: list[Tensor]

    def seconds(self, calls: int) -> float:
        """That many calls, timed where they run."""

    def close(self) -> None: ...


def _timed(program: Program, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        program.call()
    return time.perf_counter() - start


class Here:
    def __init__(self, peer: Peer, case: Case) -> None:
        self.program = peer.program(case)
        self.results = self.program.read(self.program.call())

    def seconds(self, calls: int) -> float:
        return _timed(self.program, calls)

    def close(self) -> None:
        torch.compiler.reset()  # what was compiled for one case is of no use to the next


class Elsewhere:
    """A fresh process with as many threads and cores as this one counts on."""

    def __init__(self, name: str, case: Case, job: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, name, case, job, torch.get_num_threads()))
        self.process.start()
        theirs.close()
        self.results = [torch.from_numpy(array) for array in self.receive()]

    def receive(self) -> Any:
        try:
            kind, value = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"its process died with exit status {self.process.exitcode}") from None
        if kind == "error":
            raise RuntimeError(value)
        return value

    def seconds(self, calls: int) -> float:
        self.pipe.send(calls)
        return self.receive()

    def close(self) -> None:
        self.pipe.close()
        self.process.join()


def _serve(pipe: Connection, name: str, case: Case, job: str, threads: int) -> None:
    """The other end: sends the results, then the times asked for; or, for the job "peak", the peak memory."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):  # XLA makes a thread for each core it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    try:
        program = PEERS[name].program(case)
        results = program.read(program.call())
        if job == "peak":
            del results
            pipe.send(("results", []))
            pipe.send(("bytes", added_bytes(program.call)))
            return
        pipe.send(("results", [r.detach().float().numpy() for r in results]))
        while True:
            pipe.send(("seconds", _timed(program, pipe.recv())))
    except EOFError:
        return  # the parent has closed its end: done
    except Exception as error:
        pipe.send(("error", f"{type(error).__name__}: {error}"))


def _status_bytes(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return 1024 * int(match[1])


def added_bytes(call: Callable[[], Any]) -> int:
    """Resident memory at the peak of a call above what was resident before it. Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _require(name: str, case: Case) -> Peer:
    peer = PEERS[name]
    try:
        for distribution in peer.needs:
            version(distribution)
    except PackageNotFoundError:
        raise RefusalError("not installed") from None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not peer.ours and case.taped_bytes > memory / 2:
        kept, total = case.taped_bytes / 2**30, memory / 2**30
        raise RefusalError(f"not run: it would keep about {kept:.0f} GiB, and the machine has {total:.0f}")
    return peer


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def start(name: str, case: Case) -> Runner:
    """The peer with its case built, compiled and run once. Raises RefusalError with the reason if it cannot."""
    peer = _require(name, case)
    try:
        return Elsewhere(name, case, "time") if peer.own_process else Here(peer, case)
    except RuntimeError as error:  # BackendError and torch's compiler errors are RuntimeErrors
        raise RefusalError(f"refused: {_first_line(error)}") from error


def peak_bytes(name: str, case: Case) -> int:
    """Resident memory that one call adds at its peak, in a fresh process. Linux only."""
    _require(name, case)
    try:
        runner = Elsewhere(name, case, "peak")
        peak = runner.receive()
    except (RuntimeError, OSError) as error:
        raise RefusalError(_first_line(error)) from error
    runner.close()
    return peak
