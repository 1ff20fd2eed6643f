"""Commands as they stand in messages: each can be copied into a shell and is true."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(name: str, *arguments: object) -> str:
    """A command of ours, quoted for the shell, as this program was started.

    Args:
        name: such as ``train``.
        arguments: what follows it; paths are told from options.

    Example::

        raise UserError(f"{folder}: training has not ended; `{command('train', '--resume', '--out', folder)}`")
    """
    words = [f"./{a}" if isinstance(a, Path) and str(a).startswith("-") else str(a) for a in arguments]
    return shlex.join([*_program(name), name, *words])


def _program(name: str) -> list[str]:
    if "LOCAL_WORLD_SIZE" in os.environ and name in ("train", "evaluate"):
        return [*_torchrun(), "-m", "cube3d"]
    script = Path(sys.argv[0])
    if script.name != "cube3d":
        return [sys.executable, "-m", "cube3d"]
    found = shutil.which("cube3d")
    return ["cube3d" if found and script.exists() and script.samefile(found) else str(script)]


def _torchrun() -> list[str]:
    """As this process was started, by what torchrun told it. On several hosts each has a command of its own."""
    told = os.environ
    words = ["torchrun", "--nproc-per-node", told["LOCAL_WORLD_SIZE"]]
    hosts = told.get("GROUP_WORLD_SIZE", "1")
    if hosts == "1":
        return words
    meet = ["--master-addr", told["MASTER_ADDR"], "--master-port", told["MASTER_PORT"]]
    return [*words, "--nnodes", hosts, "--node-rank", told["GROUP_RANK"], *meet]
