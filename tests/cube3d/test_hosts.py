"""Training on two hosts: two network namespaces that a cable joins (veth), and nothing between them but torchrun."""

import os
import subprocess
import sys

import pytest

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import load_settings
from cube3d.errors import UserError
from tests.cube3d.conftest import ENDS_ITS_PROCESS_GROUP

ADDRESSES = ("10.213.0.1", "10.213.0.2")


def ip(*words, **options):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True, **options)


@pytest.fixture
def hosts():
    """For each host, the words before a command that is to run there, and its end of the cable."""
    names = [f"cube{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs iproute2 and the right to make network namespaces ({getattr(error, 'stderr', error)})")
    try:
        ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", name)
            for device in ("lo", name):
                ip("-n", name, "link", "set", device, "up")
        yield [(["ip", "netns", "exec", name], name) for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_two_hosts_train_as_one(hosts, config_file, tmp_path):
    arguments = ["train", "--config", str(config_file)]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    started = []
    for rank, (there, cable) in enumerate(hosts):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}"]
        meet = ["--nproc-per-node=1", f"--master-addr={ADDRESSES[0]}", "--master-port=29533", "--no-python"]
        command = [sys.executable, "-c", ENDS_ITS_PROCESS_GROUP, *arguments, "--out", str(tmp_path / "two")]
        started.append(
            subprocess.Popen(
                [*there, *torchrun, *meet, *command],
                env=dict(os.environ, GLOO_SOCKET_IFNAME=cable, OMP_NUM_THREADS="1"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ends = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], ends
    first, second = (
        [e["eval_loss"] for e in runs.load(tmp_path / name).results("history") if "eval_loss" in e]
        for name in ("one", "two")
    )
    assert len(first) > 1
    assert second == pytest.approx(first, rel=2e-4)


def test_a_folder_that_a_host_does_not_share_is_refused(config_file, tmp_path, monkeypatch):
    """What the first process wrote is not there."""
    monkeypatch.setattr("cube3d.run._write_inputs", lambda *inputs: None)
    run = runs.start(tmp_path / "run", load_settings(config_file))
    with pytest.raises(UserError, match="process 0 does not see what the first one wrote there; all hosts"):
        runs.train(run)
