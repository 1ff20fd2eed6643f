"""Runs a function on several ranks of one group, each a process with one thread."""

from __future__ import annotations

import datetime
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def _run(
    function: Callable[..., Any],
    arguments: tuple,
    rank: int,
    ranks: int,
    store: str,
    timeout: float,
    transport: str,
    answers: Any,
):
    torch.set_num_threads(1)
    dist.init_process_group(
        transport,
        init_method=f"file://{store}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=timeout),
    )
    try:
        answers.put((rank, function(rank, *arguments), None))
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))


def on_ranks(
    function: Callable[..., Any],
    ranks: int,
    *arguments: Any,
    timeout: float = 60,
    silent: int = 0,
    transport: str = "gloo",
    start: str = "forkserver",
) -> list:
    """What ``function(rank, *arguments)`` returns on each of so many ranks.

    Args:
        function: of a module, not of another function.
        ranks: how many.
        arguments: handed on to each.
        timeout: seconds that a collective waits for its peers.
        silent: how many ranks will die without an answer.
        transport: by which they talk.
        start: how their processes begin: forked from one that has imported what takes long and has no threads yet, or
            anew, by ``"spawn"``.

    Raises:
        AssertionError: the traceback of the first that failed.
    """
    context = multiprocessing.get_context(start)
    context.set_forkserver_preload(["pytest", "torch.distributed.fsdp", "cube_kernels.sharding"])
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        processes = [
            context.Process(
                target=_run,
                args=(function, arguments, rank, ranks, store, timeout, transport, answers),
                daemon=True,
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            given = [answers.get(timeout=300) for _ in range(ranks - silent)]
        finally:
            for process in processes:
                process.join(timeout=0 if silent else 20)
                process.kill()
    failed = [f"rank {rank}:\n{error}" for rank, _, error in sorted(given, key=lambda g: g[0]) if error]
    assert not failed, "\n".join(failed)
    found = {rank: answer for rank, answer, _ in given}
    return [found.get(rank) for rank in range(ranks)]
